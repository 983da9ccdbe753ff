"""From examples to batches: which pair at which step, cropped and augmented, made ahead of the device.

Everything random is a pure function of the seed and of a draw's place in the run. That is why a resumed run sees the
very batches that the undisturbed one would have seen, with nothing but the step number to restore.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wsi_ihc.errors import DataSetError
from wsi_ihc.generators.pixels import to_tensor
from wsi_ihc.machine.processors import processors
from wsi_ihc.training.augmentation import augment_pair, crop_pair
from wsi_ihc.training.config import TrainingSettings
from wsi_ihc.training.examples import Example, Image
from wsi_ihc.training.glass import match_glass
from wsi_ihc.training.sources import Source

_ORDER, _CROP = 1, 2  # what a random stream is for, so that no two share their numbers


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors ``(n, 3, crop, crop)`` in [-1, 1] on the CPU, channels last in memory."""

    he: Tensor
    ihc: Tensor


class Schedule:
    """Which example each draw of the run takes, epoch after epoch.

    An epoch holds every source in proportion to its weight, each source's examples as evenly often as that allows, in
    random order; the draws that would make a short last batch are dropped.
    """

    def __init__(self, sources: Sequence[Source], *, seed: int, batch: int, epoch_pairs: int | None = None) -> None:
        sizes = np.array([len(source.train) for source in sources])
        weights = np.array([source.weight for source in sources])
        wanted = epoch_pairs or int(sizes.sum())
        self.steps_per_epoch = wanted // batch
        if not self.steps_per_epoch:
            raise DataSetError(
                f"{wanted} pairs in an epoch do not fill one batch of {batch}; set data.batch_size lower"
            )
        self._batch, self._seed = batch, seed
        self._first = np.concatenate([[0], np.cumsum(sizes)])
        shares = np.cumsum(weights / weights.sum())
        self._counts = np.diff(np.concatenate([[0], np.round(shares * wanted).astype(int)]))

    def batch(self, step: int) -> list[int]:
        """Indices into all sources' training examples, one after the other, of step ``step`` (from 0)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        epoch_draws: list[int] = self._epoch(epoch).tolist()
        return epoch_draws[place * self._batch : (place + 1) * self._batch]

    def _epoch(self, epoch: int) -> np.ndarray:
        parts = []
        for source, count in enumerate(self._counts):
            first, size = self._first[source], self._first[source + 1] - self._first[source]
            # The source's draws of the whole run are permutations in a row; this epoch takes its stretch of them.
            begin = epoch * count
            passes = range(begin // size, (begin + count - 1) // size + 1) if count else range(0)
            order = [np.random.default_rng((self._seed, _ORDER, source, p)).permutation(size) for p in passes]
            if order:
                start = begin - passes[0] * size
                parts.append(first + np.concatenate(order)[start : start + count])
        random = np.random.default_rng((self._seed, _ORDER, len(self._counts), epoch))
        return random.permutation(np.concatenate(parts))


class DecodedCache:
    """Decoded pairs, kept until ``limit_mb`` is reached.

    Memory bound: the limit, plus what is being read. Nothing is thrown out again: each epoch asks for every pair once,
    and against that pattern a cache that keeps the first comers hits as often as its size allows, where one that
    keeps the latest hardly hits at all.
    """

    def __init__(self, examples: Sequence[Example], limit_mb: int) -> None:
        self._examples = examples
        self._free = limit_mb * 2**20
        self._kept: dict[int, tuple[Image, Image]] = {}
        self._lock = threading.Lock()

    def read(self, index: int) -> tuple[Image, Image]:
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        pair = self._examples[index].read()
        size = pair[0].nbytes + pair[1].nbytes
        with self._lock:
            if index not in self._kept and size <= self._free:
                self._free -= size
                self._kept[index] = pair
        return pair


class TrainingData:
    """The sources as a stream of training batches, of which ``rank`` of ``ranks`` takes its share, and to validate."""

    def __init__(self, settings: TrainingSettings, sources: Sequence[Source], *, rank: int = 0, ranks: int = 1) -> None:
        self._settings = settings
        self._examples = [example for source in sources for example in source.train]
        self._validation = [example for source in sources for example in source.validation]
        self._cache = DecodedCache(self._examples, settings.data.cache_mb)
        self._rank, self._ranks = rank, ranks
        self._size = settings.data.pairs_per_step
        self.schedule = Schedule(
            sources, seed=settings.run.seed, batch=self._size * ranks, epoch_pairs=settings.data.epoch_pairs
        )
        self.waited_s = 0.0
        """Time that the consumer has spent waiting for a batch."""

    def batches(self, first_step: int, steps: int) -> Iterator[Batch]:
        """Batches of steps ``first_step`` up to ``steps``, in order, made by worker threads.

        Threads suffice: decoders and NumPy let go of the interpreter, and all share one cache. Never more than
        ``prefetch`` batches and one are in the making or waiting.
        """
        workers = self._settings.data.workers or min(16, max(2, processors()))
        with ThreadPoolExecutor(workers, thread_name_prefix="pairs") as pool:
            ahead: deque[list[Future[tuple[Image, Image]]]] = deque()
            try:
                for step in range(first_step, steps):
                    ahead.append([pool.submit(self._draw, *draw) for draw in self._draws(step)])
                    if len(ahead) > self._settings.data.prefetch:
                        yield self._join(ahead.popleft())
                while ahead:
                    yield self._join(ahead.popleft())
            finally:
                for futures in ahead:
                    for future in futures:
                        future.cancel()

    def validation(self) -> list[Batch]:
        """A batch of one for every validation example: its centre crop, at most ``validation_px``, not augmented."""
        side, align = self._settings.data.validation_px, self._settings.network.alignment
        batches = []
        for example in self._validation:
            he, ihc = example.read()
            crops = (centre_crop(image, side, align) for image in (he, self._matched(ihc)))
            batches.append(Batch(*(to_tensor(torch.from_numpy(crop)[None]) for crop in crops)))
        return batches

    def _draws(self, step: int) -> list[tuple[int, int]]:
        """``(number of the draw in the run, example)`` of this rank's share of a step."""
        first = step * self._size * self._ranks + self._rank * self._size
        share = self.schedule.batch(step)[self._rank * self._size : (self._rank + 1) * self._size]
        return [(first + place, index) for place, index in enumerate(share)]

    def _draw(self, number: int, index: int) -> tuple[Image, Image]:
        settings = self._settings
        random = np.random.default_rng((settings.run.seed, _CROP, number))
        he, ihc = self._cache.read(index)
        ihc = self._matched(ihc)
        he, ihc = crop_pair(he, ihc, settings.data.crop_px, settings.augmentation.zoom, random)
        return augment_pair(he, ihc, settings.augmentation, random)

    def _matched(self, ihc: Image) -> Image:
        """The target with the glass that the settings want."""
        return match_glass(ihc) if self._settings.augmentation.brightness == "glass" else ihc

    def _join(self, futures: list[Future[tuple[Image, Image]]]) -> Batch:
        started = time.perf_counter()
        pairs = [future.result() for future in futures]
        he, ihc = (to_tensor(torch.from_numpy(np.stack(images))) for images in zip(*pairs, strict=True))
        self.waited_s += time.perf_counter() - started
        return Batch(he, ihc)


def centre_crop(image: Image, side: int, multiple: int) -> Image:
    """The middle of an image: ``side`` pixels each way, or as many ``multiple`` as it has."""
    height, width = (min(side, length // multiple * multiple) for length in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])
