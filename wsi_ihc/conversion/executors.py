"""Executors of batches: a serial loop, the reference that tests compare with, and dask.distributed.

Both take a job and the batches that are left, and yield a report for each batch when it ends, in any order.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from importlib.metadata import version
from itertools import islice

from dask.distributed import Worker, WorkerPlugin, get_worker

from wsi_ihc.conversion.cluster import cluster_at, own_cluster
from wsi_ihc.conversion.plan import Batch
from wsi_ihc.conversion.staining import BatchReport, Staining, StainingJob
from wsi_ihc.errors import ClusterError
from wsi_ihc.machine.processors import processors

Executor = Callable[[StainingJob, Sequence[Batch]], Iterator[BatchReport]]
"""Stains every batch of a job; ``convert_slide`` takes any."""

_TASK_S = 0.25
"""A scheduler handles a few hundred tasks a second, and a task costs this process some milliseconds whatever it does:
small batches go together."""
_MOST_TOGETHER = 16


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
        tasks = _Tasks(batches)
        for reports in cluster.run(partial(_stain_on_worker, name), tasks):
            tasks.learn(reports)
            yield from reports


class _Tasks(Iterator[Sequence[Batch]]):
    """Tasks of as many ``batches`` as take ``_TASK_S`` together by the reports so far; the first task has one."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._waiting = iter(batches)
        self._together = 1

    def __next__(self) -> Sequence[Batch]:
        task = list(islice(self._waiting, self._together))
        if not task:
            raise StopIteration
        return task

    def learn(self, reports: Sequence[BatchReport]) -> None:
        """Chooses the size of the next tasks by the time that the batches of one task took."""
        batch_s = sum(report.read_s + report.stain_s + report.encode_s for report in reports) / len(reports)
        self._together = max(1, min(_MOST_TOGETHER, round(_TASK_S / max(batch_s, 1e-3))))


class _StainingPlugin(WorkerPlugin):
    """Opens the slide and loads the generator once in every worker that gets a task.

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


def _stain_on_worker(plugin_name: str, batches: Sequence[Batch]) -> list[BatchReport]:
    plugin = get_worker().plugins[plugin_name]
    assert isinstance(plugin, _StainingPlugin)
    return [plugin.stain(batch) for batch in batches]


def default_threads() -> int:
    """Two threads feed the device while it works, and more where there are cores to decode and encode on."""
    return max(3, min(8, processors() + 1))
