"""A simulation of the schedule: which stage is the bottleneck with how many workers, GPUs, cores and slides at a time.

Every stage waits for a resource that serves so many at a time, first come, first served: the cores of a worker's
machine, its device, the storage that all share, the cores of the machine that prepares and writes.
"""

from __future__ import annotations

import heapq
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Stages:
    """What the parts of a conversion take: seconds of one core (of the device for ``device_s``), and bytes moved."""

    block_megapixels: float
    read_s: float
    """Decoding a block's window."""
    device_s: float
    encode_s: float
    """Encoding a block and its share of the pyramid."""
    read_bytes: float
    write_bytes: float
    open_s: float
    """Before the first block of a slide: process, imports, tissue, plan."""
    finish_s: float
    """Per block, once they are all there: assembling and checking the file."""
    task_s: float = 1.6e-3
    """Of the dask scheduler, for every task."""
    task_blocks: int = 1
    """Blocks that go together in a task."""


@dataclass(frozen=True)
class Site:
    """Where it runs."""

    workers: int
    cores_per_worker: float
    """Cores for decoding and encoding that a worker has for itself."""
    threads_per_worker: int
    storage_bytes_s: float
    """What the shared storage gives and takes, all workers together."""
    slides_at_a_time: int = 1
    head_cores: int = 8
    """Of the machine that prepares slides and assembles files."""


@dataclass(frozen=True)
class Outcome:
    """Of a simulated cohort."""

    seconds: float
    megapixels: float
    busy: dict[str, float]
    """Share of the time that a resource worked, by name."""
    bytes_s: float
    """Through the storage, on average."""

    @property
    def rate(self) -> float:
        """Mpx of tissue a second."""
        return self.megapixels / self.seconds

    @property
    def bottleneck(self) -> str:
        """The busiest resource, or the slides' own beginnings and ends where none is busy."""
        name = max(self.busy, key=lambda name: self.busy[name])
        return name if self.busy[name] > 0.85 else "start and end of each slide"


@dataclass
class _Resource:
    """So many servers; whoever asks is served by the one that is free first."""

    servers: int
    free: list[float] = field(default_factory=list)
    worked: float = 0.0

    def serve(self, now: float, seconds: float) -> float:
        """When a request of that length, made ``now``, is done."""
        if len(self.free) < self.servers:
            heapq.heappush(self.free, 0.0)
        done = max(now, heapq.heappop(self.free)) + seconds
        heapq.heappush(self.free, done)
        self.worked += seconds
        return done


Steps = Generator[float, float, None]
"""Yields when it wants to be called again, and is told the time then."""


def simulate(stages: Stages, site: Site, *, slides: int, blocks_per_slide: int) -> Outcome:
    """A cohort of equal slides through the site."""
    cohort = _Cohort(stages, site, slides, blocks_per_slide)
    cohort.run()
    seconds, blocks = max(cohort.ends), slides * blocks_per_slide
    busy = {
        name: sum(each.worked for each in resources) / (seconds * sum(each.servers for each in resources))
        for name, resources in cohort.resources.items()
    }
    moved = blocks * (stages.read_bytes + 3 * stages.write_bytes)
    return Outcome(seconds, blocks * stages.block_megapixels, busy, moved / seconds)


class _Cohort:
    """The slides on their way through the site: what is ready, what is left, and a clock that jumps to what is next."""

    def __init__(self, stages: Stages, site: Site, slides: int, blocks_per_slide: int) -> None:
        self.stages, self.site, self.blocks_per_slide = stages, site, blocks_per_slide
        self.storage, self.head, self.scheduler = _Resource(1), _Resource(site.head_cores), _Resource(1)
        # Fractions of a core are slower cores.
        self.cores = [_Resource(max(1, round(site.cores_per_worker))) for _ in range(site.workers)]
        self.slower = max(1.0, 1 / site.cores_per_worker)
        self.devices = [_Resource(1) for _ in range(site.workers)]
        self.ready: list[int] = []
        """The slide of every block that may be stained."""
        self.left = [blocks_per_slide] * slides
        self.begun = 0
        self.ends: list[float] = []
        self._queue: list[tuple[float, int, Steps]] = []
        self._queued = 0

    @property
    def resources(self) -> dict[str, list[_Resource]]:
        return {
            "device": self.devices,
            "cores": self.cores,
            "storage": [self.storage],
            "head": [self.head],
            "scheduler": [self.scheduler],
        }

    def run(self) -> None:
        """From the first slide's beginning to the last one's end."""
        for _ in range(min(self.site.slides_at_a_time, len(self.left))):
            self._begin_next(0.0)
        for worker in range(self.site.workers):
            for _ in range(self.site.threads_per_worker):
                self._start(self._thread(worker, 0.0))
        while self._queue:
            now, _, steps = heapq.heappop(self._queue)
            with suppress(StopIteration):
                self._enqueue(steps.send(now), steps)

    def _start(self, steps: Steps) -> None:
        self._enqueue(next(steps), steps)

    def _enqueue(self, when: float, steps: Steps) -> None:
        self._queued += 1
        heapq.heappush(self._queue, (when, self._queued, steps))

    def _begin_next(self, now: float) -> None:
        if self.begun < len(self.left):
            self._start(self._begin(self.begun, now))
            self.begun += 1

    def _begin(self, slide: int, now: float) -> Steps:
        yield self.head.serve(now, self.stages.open_s)
        self.ready.extend([slide] * self.blocks_per_slide)

    def _finish(self, now: float) -> Steps:
        written = 2 * self.stages.write_bytes * self.blocks_per_slide
        moved = self.storage.serve(now, written / self.site.storage_bytes_s)
        now = yield max(self.head.serve(now, self.stages.finish_s * self.blocks_per_slide), moved)
        self.ends.append(now)
        self._begin_next(now)

    def _thread(self, worker: int, now: float) -> Steps:
        """Stains task after task; whoever stains a slide's last block has it finished."""
        while len(self.ends) < len(self.left):
            if not self.ready:
                now = yield now + 0.02
                continue
            size = self.stages.task_blocks
            task, self.ready = self.ready[:size], self.ready[size:]
            now = yield self.scheduler.serve(now, self.stages.task_s)
            for slide in task:
                now = yield from self._stain(worker, now)
                self.left[slide] -= 1
                if self.left[slide] == 0:
                    self._start(self._finish(now))

    def _stain(self, worker: int, now: float) -> Generator[float, float, float]:
        """One block: read, decoded, stained, encoded, written. Returns when."""
        stages, rate = self.stages, self.site.storage_bytes_s
        now = yield self.storage.serve(now, stages.read_bytes / rate)
        now = yield self.cores[worker].serve(now, stages.read_s * self.slower)
        now = yield self.devices[worker].serve(now, stages.device_s)
        now = yield self.cores[worker].serve(now, stages.encode_s * self.slower)
        return (yield self.storage.serve(now, stages.write_bytes / rate))
