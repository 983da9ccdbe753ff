"""A simulation of the schedule: which stage is the bottleneck with how many workers, GPUs, cores and slides at a time.

Every stage waits for a resource that serves so many at a time, first come, first served: the cores of a worker's
machine, its device, the storage that all share, the cores of the machine that prepares and writes.
"""

from __future__ import annotations

import heapq
from collections.abc import Generator
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
    storage, head, scheduler = _Resource(1), _Resource(site.head_cores), _Resource(1)
    # Fractions of a core are slower cores.
    cores = [_Resource(max(1, round(site.cores_per_worker))) for _ in range(site.workers)]
    slower = max(1.0, 1 / site.cores_per_worker)
    devices = [_Resource(1) for _ in range(site.workers)]
    ready: list[int] = []
    left = dict.fromkeys(range(slides), blocks_per_slide)
    waiting, to_begin = 0, slides
    ends: list[float] = []

    def conduct(slide: int, now: float) -> Steps:
        """Begins a slide; its end is conducted by whoever stains its last block."""
        now = yield head.serve(now, stages.open_s)
        ready.extend([slide] * blocks_per_slide)

    def finish(now: float) -> Steps:
        nonlocal to_begin
        length = stages.finish_s * blocks_per_slide
        moved = storage.serve(now, 2 * stages.write_bytes * blocks_per_slide / site.storage_bytes_s)
        now = yield max(head.serve(now, length), moved)
        ends.append(now)
        if to_begin:
            to_begin -= 1
            start(conduct(to_begin, now), now)

    def thread(worker: int, now: float) -> Steps:
        while len(ends) < slides:
            if not ready:
                now = yield now + 0.02
                continue
            task, ready[: stages.task_blocks] = ready[: stages.task_blocks], []
            now = yield scheduler.serve(now, stages.task_s)
            for slide in task:
                now = yield storage.serve(now, stages.read_bytes / site.storage_bytes_s)
                now = yield cores[worker].serve(now, stages.read_s * slower)
                now = yield devices[worker].serve(now, stages.device_s)
                now = yield cores[worker].serve(now, stages.encode_s * slower)
                now = yield storage.serve(now, stages.write_bytes / site.storage_bytes_s)
                left[slide] -= 1
                if left[slide] == 0:
                    start(finish(now), now)

    queue: list[tuple[float, int, Steps]] = []

    def start(steps: Steps, now: float) -> None:
        nonlocal waiting
        waiting += 1
        heapq.heappush(queue, (next(steps), waiting, steps))

    for _ in range(min(site.slides_at_a_time, slides)):
        to_begin -= 1
        start(conduct(to_begin, 0.0), 0.0)
    for worker in range(site.workers):
        for _ in range(site.threads_per_worker):
            start(thread(worker, 0.0), 0.0)
    while queue:
        now, _, steps = heapq.heappop(queue)
        try:
            waiting += 1
            heapq.heappush(queue, (steps.send(now), waiting, steps))
        except StopIteration:
            pass
    seconds = max(ends)

    def share(resources: list[_Resource]) -> float:
        return sum(each.worked for each in resources) / (seconds * sum(each.servers for each in resources))

    busy = {"device": share(devices), "cores": share(cores), "storage": share([storage]), "head": share([head])}
    busy["scheduler"] = share([scheduler])
    moved = slides * blocks_per_slide * (stages.read_bytes + 3 * stages.write_bytes)
    return Outcome(seconds, slides * blocks_per_slide * stages.block_megapixels, busy, moved / seconds)
