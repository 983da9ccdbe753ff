"""Tasks on a dask cluster that may lose a worker, its network or its scheduler at any moment.

The scheduler repeats the tasks of a dead worker on another one. This module does the rest: it sends a task again that
met several dying workers, it lets workers join and leave at any time, and it limits every wait.
"""

from __future__ import annotations

import logging
import pickle
import time
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import dask
import distributed.batched
from dask.distributed import Client, Future, KilledWorker, Scheduler, SpecCluster, Worker, WorkerPlugin, get_worker

from wsi_ihc.errors import ClusterError, DeviceError

logger = logging.getLogger(__name__)

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_EPOCH = time.time() - time.monotonic()

_IN_FLIGHT_PER_THREAD = 2
"""Tasks known to the scheduler for each thread: one that runs and one that waits. More would only cost memory."""
_CONNECT_S = 20.0
_LOOK_S = 5.0
"""Time between two looks at the cluster."""
_ANSWER_S = 15.0
_MOST_UNANSWERED = 2
"""Looks in a row. One may go unanswered: this machine may have slept in the middle of it."""
_MOST_TRIES = 10
_PAUSE_S = 1.0
"""Pause between two tries to reach all workers while some of them die."""
_EMPTY_S = 600.0
"""Longest wait without any worker: a queue may need minutes to start the next one."""
_TOPIC = "wsi-ihc"
"""Topic of the events that carry results. All runs share one: a scheduler keeps the last events of each topic."""
_MOST_ROUNDS = 3
"""How often a task is sent again after distributed has given it up, each time after four workers died. A queue may take
workers away, but a dozen deaths on one task are that task's fault."""


@dataclass
class Cluster:
    """A connection to a scheduler: our own, with threads of this process, or one at ``address``."""

    client: Client
    address: str | None = None
    threads: int = 1
    _looked: float = float("-inf")
    _peopled: float = 0.0
    _unanswered: int = 0

    def run(self, task: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
        """``task`` of every item, in any order; at most two a thread are known to the scheduler at a time.

        Raises:
            ClusterError: the scheduler is lost, or there has been no worker for ten minutes.
            DeviceError: a task ends every worker that takes it.
            Exception: whatever ``task`` has raised.
        """
        told: SimpleQueue[tuple[int, Future[Any] | None, bytes]] = SimpleQueue()
        running: dict[int, tuple[Future[Any], _Item]] = {}
        rounds: Counter[int] = Counter()
        run = uuid.uuid4().hex

        def hear(event: tuple[float, dict[str, Any]]) -> None:
            if event[1].get("run") == run:
                told.put((event[1]["number"], None, event[1]["result"]))

        def submit(number: int, item: _Item) -> None:
            future = self.client.submit(_do_and_tell, task, item, run, number, pure=False)
            running[number] = future, item
            future.add_done_callback(lambda future: told.put((number, future, b"")))

        self.client.subscribe_topic(_TOPIC, hear)
        waiting = enumerate(items)
        while True:
            self._look()
            for number, item in islice(waiting, max(0, _IN_FLIGHT_PER_THREAD * max(1, self.threads) - len(running))):
                submit(number, item)
            if not running:
                return
            try:
                number, future, result = told.get(timeout=_LOOK_S)
            except Empty:
                continue
            if number not in running or (future and future.status == "finished"):
                continue  # its result has arrived already, or arrives separately
            if future is None:
                del running[number]
                yield pickle.loads(result)
            elif future.status != "error":
                raise self._lost()
            elif not isinstance(error := future.exception(), KilledWorker):
                raise error
            else:
                rounds[number] += 1
                if rounds[number] > _MOST_ROUNDS:
                    raise self._deadly(running[number][1]) from error
                submit(number, running[number][1])

    @contextmanager
    def equipped(self, plugin: WorkerPlugin) -> Generator[str]:
        """Gives every worker ``plugin``, also one that joins late, and yields the name under which they know it."""
        name = f"{type(plugin).__name__} {self.client.id}"
        self._register(plugin, name)
        try:
            yield name
        finally:
            with suppress(CancelledError, OSError):
                self._ask("unregister_worker_plugin", name=name)

    def _register(self, plugin: WorkerPlugin, name: str) -> None:
        for _ in range(_MOST_TRIES):
            try:
                if self.address:
                    _forget_the_dead(self.client, type(plugin).__name__)
                self.client.register_plugin(plugin, name)
                return
            except (CancelledError, OSError):
                # A worker died in the middle of it. Those that live have the plugin, or get it at the next try.
                self._look(at_once=True)
                time.sleep(_PAUSE_S)
        raise self._lost()

    def _look(self, *, at_once: bool = False) -> None:
        """Asks now and then how many threads there are, and whether there is any worker."""
        if self.address is None or not (at_once or time.monotonic() - self._looked > _LOOK_S):
            return
        try:
            self.threads = sum(self._ask("ncores").values())
            self._unanswered = 0
        except (CancelledError, OSError) as error:
            self._unanswered += 1
            if self._unanswered == _MOST_UNANSWERED or not isinstance(error, TimeoutError):
                raise self._lost() from error
        self._looked = time.monotonic()
        if self.threads:
            self._peopled = 0.0
        elif not self._peopled:
            self._peopled = self._looked
            logger.warning("no worker at %s; waiting for one", self.address)
        elif self._looked - self._peopled > _EMPTY_S:
            raise ClusterError(
                f"no worker has come to {self.address} for {_EMPTY_S / 60:.0f} minutes; start some, then run the "
                "same command again, it continues"
            )

    def _ask(self, question: str, **arguments: object) -> Any:
        """The scheduler's answer, within ``_ANSWER_S``."""
        if self.client.status != "running":
            raise self._lost()
        return self.client.sync(getattr(self.client.scheduler, question), callback_timeout=_ANSWER_S, **arguments)

    def _lost(self) -> ClusterError:
        where = f" at {self.address}" if self.address else ""
        return ClusterError(
            f"the dask scheduler{where} is lost; once it is back, run the same command again, it continues"
        )

    @staticmethod
    def _deadly(item: object) -> DeviceError:
        return DeviceError(
            f"every worker that took blocks {item} has died; give workers more memory, or look at the slide there, "
            "then run the same command again, it continues"
        )


@contextmanager
def own_cluster(threads: int) -> Generator[Cluster]:
    """Threads of this process. No socket listens, so no other process reaches them."""
    settings = {
        # Heartbeats are judged by the time of day. When a machine has slept, or its clock was set forward, the
        # scheduler would take our only worker for dead, and wait for another for ever.
        "distributed.scheduler.worker-ttl": None,
    }
    inside = {"protocol": "inproc://"}
    with (
        _silence(),
        dask.config.set(settings),
        SpecCluster(
            scheduler={"cls": _Scheduler, "options": {**inside, "dashboard": False}},
            workers={0: {"cls": _Worker, "options": {**inside, "nthreads": threads, "memory_limit": 0}}},
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        _keep_time(client)
        yield Cluster(client, threads=threads)


class _NoWebPages:
    """In front of a node of distributed: it has no setting that keeps its HTTP server from listening."""

    def start_http_server(self, *arguments: object, **named: object) -> None: ...


class _Scheduler(_NoWebPages, Scheduler): ...


class _Worker(_NoWebPages, Worker): ...


@contextmanager
def cluster_at(address: str) -> Generator[Cluster]:
    """The cluster of the scheduler at ``address``.

    Raises:
        ClusterError: none answers there.
    """
    with _silence():
        try:
            client = Client(address, timeout=_CONNECT_S)
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"no dask scheduler answers at {address} ({error}); start it, or correct the address"
            ) from None
        _keep_time(client)
        try:
            yield Cluster(client, address)
        finally:
            with suppress(CancelledError, OSError, AssertionError):
                client.close(timeout=_ANSWER_S)


def _do_and_tell(task: Callable[[_Item], _Result], item: _Item, run: str, number: int) -> None:
    """Runs on a worker. The result travels with the news that the task is done, so that it need not be fetched from
    a worker that may have died or does not answer."""
    result = pickle.dumps(task(item))
    get_worker().log_event(_TOPIC, {"run": run, "number": number, "result": result})


def _steady_time() -> float:
    """The time of day as it was when this module was imported, and the seconds since then, whatever the clock did."""
    return _EPOCH + time.monotonic()


def _keep_time(client: Client) -> None:
    """Measures deadlines in this process by a clock that cannot be set.

    dask and tornado take the time of day for them: were the clock set back in the milliseconds in which a message waits
    to be sent, it would wait for as long as the clock was set back, and the run with it.
    """
    assert client.loop
    client.loop.time = _steady_time  # type: ignore[method-assign]
    distributed.batched.time = _steady_time  # type: ignore[attr-defined]


def _forget_the_dead(client: Client, kind: str) -> None:
    """Removes plugins of clients that were killed: workers would keep their slides and generators open."""

    # Sent by value, as a function inside a function is: the scheduler need not have wsi-ihc.
    async def forget(dask_scheduler: Any) -> None:
        for name in list(dask_scheduler.worker_plugins):
            found, _, owner = name.partition(" ")
            if found == kind and owner not in dask_scheduler.clients:
                await dask_scheduler.unregister_worker_plugin(comm=None, name=name)

    client.run_on_scheduler(forget)


@contextmanager
def _silence() -> Generator[None]:
    """Turns off distributed's own reports, tracebacks in the user's terminal: failures are exceptions anyway."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
