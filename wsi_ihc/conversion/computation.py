"""Where blocks are stained and in which arithmetic: chosen once, the same for every worker."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch

from wsi_ihc.config import ComputeSettings
from wsi_ihc.conversion.cluster import cluster_at
from wsi_ihc.generators.device import Graph, choose_backend, choose_device, choose_dtype
from wsi_ihc.machine.processors import cores


@dataclass(frozen=True)
class Computation:
    """The choices of ``auto`` on the machine that stains."""

    device: str
    """Its class, ``cpu`` or ``cuda``."""
    precision: str
    backend: str
    free_bytes: int | None
    """Memory that is free on the GPU; None on a CPU."""
    threads: int = 1
    """Threads of the arithmetic on a CPU. Libraries choose kernels, and so the order of sums, by this number: it is
    the same in every worker, or the last bit of a pixel would depend on who stained it."""

    @classmethod
    def here(cls, compute: ComputeSettings, graph: Graph) -> Computation:
        """On this machine, for a generator of this kind of ``graph``.

        Raises:
            DeviceError: the settings ask for what is not here, or for what does not go together.
        """
        device = choose_device(compute.device)
        dtype = choose_dtype(compute.precision, device)
        backend = choose_backend(compute.backend, device, dtype, graph)
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
        return cls(device.type, str(dtype).removeprefix("torch."), backend, free, torch.get_num_threads())

    @classmethod
    def for_run(cls, compute: ComputeSettings, graph: Graph) -> Computation:
        """Here, or on a worker of the scheduler that the settings name: this machine may have no GPU where they have.

        Raises:
            ClusterError: no scheduler answers there. DeviceError: the settings ask for a device that is not there.
        """
        if compute.scheduler is None:
            return cls.here(compute, graph)
        with cluster_at(compute.scheduler) as cluster:
            return next(cluster.run(partial(_on_a_worker, graph=graph), [compute]))

    @property
    def recorded(self) -> dict[str, str]:
        """The part that the pixels depend on, for provenance and for a run that continues this one."""
        return {"device": self.device, "precision": self.precision, "backend": self.backend}

    def settle(self, compute: ComputeSettings) -> ComputeSettings:
        """The same settings without ``auto``: a worker that cannot follow them must fail, not choose something else."""
        device = self.device if compute.device == "auto" else compute.device
        return compute.model_copy(update=self.recorded | {"device": device})


def _on_a_worker(compute: ComputeSettings, graph: Graph) -> Computation:
    # dask starts its workers with OMP_NUM_THREADS=1, which would leave most of a machine idle.
    return replace(Computation.here(compute, graph), threads=cores())
