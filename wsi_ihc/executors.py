"""Who runs the batches: a serial loop, the reference that tests compare with, or dask.distributed.

Both take a job and the batches that are to be done, and yield a report per batch as they end, in any order.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice

from dask.distributed import Client, Worker, WorkerPlugin, as_completed, get_worker

from wsi_ihc.errors import SettingsError
from wsi_ihc.plan import Batch
from wsi_ihc.staining import BatchReport, Staining, StainingJob

_IN_FLIGHT_PER_THREAD = 2
"""Tasks known to the scheduler for each thread: one at work and one that waits. More would only cost memory."""


def run_serial(job: StainingJob, batches: Sequence[Batch]) -> Iterator[BatchReport]:
    """One batch after the other in this thread."""
    with closing(Staining.open(job)) as staining:
        yield from map(staining.stain, batches)


def run_dask(job: StainingJob, batches: Sequence[Batch]) -> Iterator[BatchReport]:
    """On the cluster that ``job.settings.compute`` names: by default threads of this process.

    At most two tasks a thread are in flight, so a slide of any size is never a queue of its own size.
    """
    with _client(job) as client:
        plugin = _StainingPlugin(job)
        client.register_plugin(plugin)
        waiting = iter(batches)
        limit = _IN_FLIGHT_PER_THREAD * max(1, sum(client.nthreads().values()))
        submit = partial(client.submit, _stain_on_worker, plugin.name, pure=False)
        running = as_completed(map(submit, islice(waiting, limit)))
        try:
            for future in running:
                yield future.result()
                for batch in islice(waiting, 1):
                    running.add(submit(batch))
        finally:
            client.unregister_worker_plugin(plugin.name)


class _StainingPlugin(WorkerPlugin):
    """Opens the slide and loads the generator once in every worker, also in one that joins late.

    Each conversion has its own: several may share a cluster.
    """

    def __init__(self, job: StainingJob) -> None:
        self.name = f"wsi-ihc-{uuid.uuid4().hex}"
        self._job = job

    def setup(self, worker: Worker) -> None:
        self.staining = Staining.open(self._job)

    def teardown(self, worker: Worker) -> None:
        self.staining.close()


def _stain_on_worker(plugin_name: str, batch: Batch) -> BatchReport:
    plugin = get_worker().plugins[plugin_name]
    assert isinstance(plugin, _StainingPlugin)
    return plugin.staining.stain(batch)


@contextmanager
def _client(job: StainingJob) -> Generator[Client]:
    address = job.settings.compute.scheduler
    # A failed task comes back as its exception; distributed's own report of it is a traceback in the user's terminal.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if address is None:
        threads = job.settings.compute.threads or default_threads()
        with Client(
            processes=False,
            n_workers=1,
            threads_per_worker=threads,
            memory_limit=0,
            # Their web pages cannot be turned off: nobody else may reach them, and two runs must not share a port.
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
        ) as client:
            yield client
        return
    try:
        client = Client(address, timeout="20s")
    except (OSError, TimeoutError) as error:
        raise SettingsError(
            f"no dask scheduler answers at {address} ({error}); is it running, and reachable?"
        ) from None
    with client:
        yield client


def default_threads() -> int:
    """Two threads feed the device while it works, and more where there are cores to decode and encode on."""
    return max(3, min(8, (os.cpu_count() or 2) + 1))
