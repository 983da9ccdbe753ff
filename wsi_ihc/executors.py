"""Who runs the batches: a serial loop, the reference that tests compare with, or dask.distributed.

Both take a job and the batches that are to be done, and yield a report per batch as they end, in any order.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from importlib.metadata import version

from dask.distributed import Worker, WorkerPlugin, get_worker

from wsi_ihc.cluster import cluster_at, own_cluster
from wsi_ihc.errors import ClusterError
from wsi_ihc.plan import Batch
from wsi_ihc.staining import BatchReport, Staining, StainingJob


def run_serial(job: StainingJob, batches: Sequence[Batch]) -> Iterator[BatchReport]:
    """One batch after the other in this thread."""
    with closing(Staining.open(job)) as staining:
        yield from map(staining.stain, batches)


def run_dask(job: StainingJob, batches: Sequence[Batch]) -> Iterator[BatchReport]:
    """On the cluster that ``job.settings.compute`` names: by default threads of this process.

    Raises:
        ClusterError: there is no such cluster, or it is lost; what was stained is kept.
    """
    compute = job.settings.compute
    there = cluster_at(compute.scheduler) if compute.scheduler else own_cluster(compute.threads or default_threads())
    with there as cluster, cluster.equipped(_StainingPlugin(job)) as name:
        yield from cluster.run(partial(_stain_on_worker, name), batches)


class _StainingPlugin(WorkerPlugin):
    """Opens the slide and loads the generator once in every worker that has something to do.

    Each conversion has its own: several may share a cluster.
    """

    def __init__(self, job: StainingJob) -> None:
        self._job = job
        self._version = version("wsi-ihc")

    def setup(self, worker: Worker) -> None:
        self._opening = threading.Lock()
        self._staining: Staining | None = None

    def teardown(self, worker: Worker) -> None:
        if self._staining:
            self._staining.close()

    def stain(self, batch: Batch) -> BatchReport:
        """Opened by the first task, whose error reaches the user; a plugin's own would be lost in a worker's log."""
        with self._opening:
            if self._staining is None:
                if (here := version("wsi-ihc")) != self._version:
                    raise ClusterError(
                        f"the worker on {socket.gethostname()} has wsi-ihc {here}, not {self._version}; their pixels "
                        "may differ, install one version everywhere"
                    )
                self._staining = Staining.open(self._job)
        return self._staining.stain(batch)


def _stain_on_worker(plugin_name: str, batch: Batch) -> BatchReport:
    plugin = get_worker().plugins[plugin_name]
    assert isinstance(plugin, _StainingPlugin)
    return plugin.stain(batch)


def default_threads() -> int:
    """Two threads feed the device while it works, and more where there are cores to decode and encode on."""
    return max(3, min(8, (os.cpu_count() or 2) + 1))
