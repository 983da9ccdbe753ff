"""The task that stains blocks.

A task carries plain data (which blocks) and returns counts; pixels never leave the worker. A worker opens the slide
and loads the generator once. Several tasks run in a worker at a time, so that reading and encoding hide behind the
device; the device itself takes one batch at a time.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.config import ConversionSettings
from wsi_ihc.generators import NormStatistics, Stainer, apply_statistics, fix_normalisation, load_generator
from wsi_ihc.geometry import Region, Size
from wsi_ihc.plan import Batch
from wsi_ihc.slides import SlideView, open_slide
from wsi_ihc.store import TileStore
from wsi_ihc.tiling import Tile, TileGrid
from wsi_ihc.tissue import TissueMask


@dataclass(frozen=True)
class StainingJob:
    """Everything that a worker needs to know, as plain data; it opens the rest itself."""

    source: Path
    settings: ConversionSettings
    mpp: float | None
    grid: TileGrid
    mask: TissueMask
    statistics: NormStatistics | None
    store: Path


@dataclass(frozen=True)
class BatchReport:
    """What one batch cost. ``wait_s`` is time in the queue for the device, not work."""

    blocks: int
    read_s: float
    wait_s: float
    stain_s: float
    encode_s: float


@dataclass
class Staining:
    """One worker's open slide, loaded generator and store. Several threads call ``stain`` at once.

    Memory bound: each thread holds one batch of windows and of stained windows, the device works on one batch, and
    the reader keeps its cache. Nothing grows with the slide.
    """

    grid: TileGrid
    view: SlideView
    mask: TissueMask
    stainer: Stainer
    store: TileStore
    _device: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(cls, job: StainingJob) -> Staining:
        view = SlideView.at(
            open_slide(job.source, job.settings.slide), job.mpp, tolerance=job.settings.resolution.tolerance
        )
        return cls(job.grid, view, job.mask, load_stainer(job.settings, job.statistics), TileStore.attach(job.store))

    def close(self) -> None:
        self.view.slide.close()

    def stain(self, batch: Batch) -> BatchReport:
        """Reads, stains, encodes and stores the blocks of ``batch``."""
        tiles = [self.grid.tile(row, column) for row, column in batch]
        started = time.perf_counter()
        windows = np.stack([self.view.read(tile.window) for tile in tiles])
        read = time.perf_counter()
        with self._device:
            admitted = time.perf_counter()
            stained = self.stainer(windows)
            done = time.perf_counter()
        for tile, window in zip(tiles, stained, strict=True):
            self.store.put(tile.row, tile.column, self._on_glass(tile, window))
        encoded = time.perf_counter()
        return BatchReport(len(batch), read - started, admitted - read, done - admitted, encoded - done)

    def _on_glass(self, tile: Tile, window: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The core of a stained window, white where there is no tissue or no slide."""
        core = tile.core
        pixels = window[core.relative_to(tile.window).slices]
        inside = core.intersection(Region(0, 0, *self.grid.size)).size
        return whiten_glass(pixels, self.mask.coverage(core), inside)


def whiten_glass(pixels: NDArray[np.uint8], coverage: NDArray[np.float32] | None, inside: Size) -> NDArray[np.uint8]:
    """Fades ``pixels`` (h, w, 3) to white by tissue ``coverage`` (h, w); all white beyond ``inside``, their part on the
    plane. Exact where the coverage is 0 or 1; ``None`` is 1 everywhere.
    """
    if coverage is None and inside == pixels.shape[:2]:
        return np.ascontiguousarray(pixels)
    result = np.full(pixels.shape, 255, np.uint8)
    rows, columns = slice(inside.height), slice(inside.width)
    if coverage is None:
        result[rows, columns] = pixels[rows, columns]
    else:
        absorbed = (255 - pixels[rows, columns]) * coverage[rows, columns, None]
        result[rows, columns] -= np.rint(absorbed).astype(np.uint8)
    return result


def load_stainer(settings: ConversionSettings, statistics: NormStatistics | None) -> Stainer:
    """The generator on its device, its normalisation fixed: by ``statistics`` where they were calibrated."""
    network = load_generator(settings.generator.name).build()
    if statistics is not None:
        fixed = apply_statistics(network, statistics)
    else:
        fixed, _ = fix_normalisation(network, settings.generator.normalisation)
    return Stainer(fixed, device=settings.compute.device, precision=settings.compute.precision)
