"""The task that stains blocks.

A task carries plain data (which blocks) and returns counts; pixels never leave the worker. A worker opens the slide
and loads the generator once. Several tasks run in a worker at a time, so that reading and encoding hide behind the
device; the device itself takes one batch at a time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from wsi_ihc.config import ConversionSettings
from wsi_ihc.conversion.measured import MeasuredLayer
from wsi_ihc.conversion.plan import Batch
from wsi_ihc.conversion.store import TileStore
from wsi_ihc.generators import NormStatistics, Stainer, apply_statistics, fix_normalisation, load_generator
from wsi_ihc.machine.pixel_memory import PixelMemory
from wsi_ihc.pyramid.blocks import BlockGrid
from wsi_ihc.pyramid.codecs import WHITE, Colour
from wsi_ihc.pyramid.layers import STAINED
from wsi_ihc.slides import SlideView, open_slide
from wsi_ihc.tissue import TissueMask

_BAND_PX = 64


@dataclass(frozen=True)
class StainingJob:
    """Everything that a worker needs, as plain data; the worker opens slide, generator and store itself."""

    source: Path
    settings: ConversionSettings
    mpp: float | None
    grid: BlockGrid
    mask: TissueMask
    statistics: NormStatistics | None
    store: Path
    threads: int
    """Threads of the arithmetic on a CPU, the same in every worker."""
    measured: tuple[MeasuredLayer, ...] = ()
    """Layers that are measured beside the stain."""


@dataclass(frozen=True)
class BatchReport:
    """Seconds that one batch took. ``wait_s`` is time in the queue for the device, not work."""

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

    grid: BlockGrid
    view: SlideView
    mask: TissueMask
    stainer: Stainer
    store: TileStore
    threads: int
    measured: tuple[MeasuredLayer, ...] = ()
    memory: PixelMemory = field(default_factory=PixelMemory)

    @classmethod
    def open(cls, job: StainingJob) -> Staining:
        view = SlideView.at(
            open_slide(job.source, job.settings.slide), job.mpp, tolerance=job.settings.resolution.tolerance
        )
        stainer, store = load_stainer(job.settings, job.statistics), TileStore.attach(job.store)
        return cls(job.grid, view, job.mask, stainer, store, job.threads, job.measured)

    def close(self) -> None:
        self.view.slide.close()

    def stain(self, batch: Batch) -> BatchReport:
        """Reads, stains, measures, encodes and stores the blocks of ``batch``."""
        blocks = [self.grid.block(row, column) for row, column in batch]
        started = time.perf_counter()
        read_windows = [self.view.read(block.window) for block in blocks]
        # A batch of one, the rule on a processor, need not be copied together.
        windows = np.stack(read_windows) if len(blocks) > 1 else read_windows[0][None]
        read = time.perf_counter()
        use_threads(self.threads)
        stained = self.stainer.stain(windows, halo_px=self.grid.halo_px)
        done = time.perf_counter()
        planes = {each.layer.name: each.measure(windows, stained.pixels) for each in self.measured}
        for number, block in enumerate(blocks):
            coverage = self.mask.coverage(block.core)
            layers = {STAINED: self._faded(stained.pixels[number], coverage)}
            for each in self.measured:
                layers[each.layer.name] = each.on_tissue(planes[each.layer.name][number], coverage)
            self.store.put(block.row, block.column, layers)
        encoded = time.perf_counter()
        return BatchReport(len(batch), read - started, stained.wait_s, stained.stain_s, encoded - done)

    def _faded(self, core: NDArray[np.uint8], coverage: NDArray[np.float32] | None) -> NDArray[np.uint8]:
        return fade_to_glass(core, coverage, self.store.layout.layer(STAINED).fill, self.memory)


def fade_to_glass(
    pixels: NDArray[np.uint8],
    coverage: NDArray[np.float32] | None,
    glass: Colour = WHITE,
    memory: PixelMemory | None = None,
) -> NDArray[np.uint8]:
    """Fades ``pixels`` (h, w, 3) to the colour of glass by tissue ``coverage`` (h, w); None is 1 everywhere.

    The difference to glass is multiplied and rounded, halves to even: exact where the coverage is 0 or 1. In bands of
    rows that fit a processor's cache. The result lies in ``memory`` when there is one.
    """
    if coverage is None:
        return np.ascontiguousarray(pixels)
    faded = (memory or PixelMemory()).array(pixels.shape)
    colour = (*glass, 0)
    for top in range(0, pixels.shape[0], _BAND_PX):
        rows = slice(top, top + _BAND_PX)
        share = cv2.merge([coverage[rows]] * 3)
        # OpenCV's stubs know no colours here, OpenCV does.
        apart = cv2.subtract(pixels[rows], colour, dtype=cv2.CV_16S)  # type: ignore[call-overload]
        cv2.multiply(apart, share, dst=apart, dtype=cv2.CV_16S)
        cv2.add(apart, colour, dst=faded[rows], dtype=cv2.CV_8U)  # type: ignore[call-overload]
    return faded


def use_threads(count: int) -> None:
    """Makes torch compute on ``count`` threads when this thread calls it: every calling thread has its own number."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def load_stainer(settings: ConversionSettings, statistics: NormStatistics | None) -> Stainer:
    """The generator on its device, its normalisation fixed: by ``statistics`` where they were calibrated."""
    network = load_generator(settings.generator.name).build()
    if statistics is not None:
        fixed = apply_statistics(network, statistics)
    else:
        fixed, _ = fix_normalisation(network, settings.generator.normalisation)
    compute = settings.compute
    return Stainer(fixed, device=compute.device, precision=compute.precision, backend=compute.backend)
