"""Verification of the pixels: every tile decodes, is not black, and agrees with the level below it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from wsi_ihc.errors import one_line
from wsi_ihc.machine.processors import processors
from wsi_ihc.output.ometiff.tiles import TileLevel
from wsi_ihc.pyramid.folding import Cell, fold, fold_in_threads, paste_quarter
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.pyramid.levels import Pixels, halve

_SAMPLES_PER_LEVEL = 6
"""Tiles per level in a quick verification, half of them the largest: those hold tissue."""

_BLUR = 8
"""Levels are compared by means over squares of this side: coding noise cancels, a damaged tile does not."""


def pixel_problems(levels: list[TileLevel], *, quick: bool) -> Iterator[str]:
    """Tiles that do not decode, are black, or differ from the mean of the finer level.

    All of them, each decoded once, or a sample of each level when ``quick``. Memory bound: two tiles per level and
    thread, and a quarter of a tile for each of up to about 60 subtrees.
    """
    comparison, threads = _Comparison(levels), min(8, processors())
    if quick:
        with ThreadPoolExecutor(threads) as pool:
            made = list(pool.map(comparison.sample, _samples(levels)))
    else:
        made = fold_in_threads(comparison.grids, comparison.leaf, comparison.join, threads=threads)
    for checked in made:
        yield from checked.problems


class _Checked(NamedTuple):
    """A checked tile: its pixels at half the size, for the tile above; None where it does not decode."""

    quarter: Pixels | None
    problems: list[str]
    """Problems of the tile and of those below it, one line each."""


@dataclass(frozen=True)
class _Comparison:
    """Looks at tiles, and compares each with the four below it."""

    levels: list[TileLevel]

    @property
    def grids(self) -> tuple[Size, ...]:
        return tuple(level.grid for level in self.levels)

    def sample(self, cell: Cell) -> _Checked:
        """Looks at one tile and the tiles directly below it."""
        return fold(self.grids, cell, self.leaf, self.join, floor=max(0, cell.level - 1))

    def leaf(self, cell: Cell) -> _Checked:
        return self._checked(cell, None, [])

    def join(self, cell: Cell, below: Iterable[tuple[Cell, _Checked]]) -> _Checked:
        problems: list[str] = []
        mean, complete = self.levels[cell.level - 1].white(), True
        for child, checked in below:
            problems += checked.problems
            if checked.quarter is None:
                complete = False
            else:
                paste_quarter(mean, child, checked.quarter, tile_px=self.levels[cell.level].side)
        return self._checked(cell, mean if complete else None, problems)

    def _checked(self, cell: Cell, mean: Pixels | None, problems: list[str]) -> _Checked:
        """Looks at a tile and, where there is one, compares it with the ``mean`` of the tiles below it."""
        level, name = self.levels[cell.level], f"level {cell.level}, tile {cell.row}, {cell.column}"
        try:
            pixels = level.pixels(cell.row, cell.column)
        except Exception as error:
            return _Checked(None, [*problems, f"{name}: does not decode ({one_line(error)[:80]})"])
        if level.is_black(pixels):
            problems.append(f"{name}: all black")
        if mean is not None:
            difference = _difference(pixels, mean, self._common(cell))
            if difference > max(level.tolerance, self.levels[cell.level - 1].tolerance):
                problems.append(f"{name}: differs from the level below it by {difference:.0f} grey levels")
        return _Checked(halve(pixels) if cell.level + 1 < len(self.levels) else None, problems)

    def _common(self, cell: Cell) -> Size:
        """The part of a tile that both levels cover with whole pixels."""
        level, finer = self.levels[cell.level], self.levels[cell.level - 1]
        height = min(level.size.height, finer.size.height // 2) - cell.row * level.side
        width = min(level.size.width, finer.size.width // 2) - cell.column * level.side
        return Size(min(level.side, height), min(level.side, width))


def _samples(levels: list[TileLevel]) -> list[Cell]:
    """Tiles of every level but the finest, with which those of the finest are compared: spread out, and the largest."""
    cells = []
    for number, level in enumerate(levels):
        if number or len(levels) == 1:
            counts = np.asarray(level.page.databytecounts)
            spread = np.linspace(0, len(counts) - 1, _SAMPLES_PER_LEVEL // 2).astype(int)
            largest = np.argsort(counts, kind="stable")[-(_SAMPLES_PER_LEVEL // 2) :]
            indices = np.unique(np.concatenate([spread, largest]))
            cells += [Cell(number, *divmod(int(index), level.grid.width)) for index in indices]
    return cells


def _difference(a: Pixels, b: Pixels, common: Size) -> float:
    """The largest difference of means over squares of 8 px, in the whole squares of the ``common`` part."""
    height, width = common.height // _BLUR * _BLUR, common.width // _BLUR * _BLUR
    if height <= 0 or width <= 0:
        return 0.0
    squares = (width // _BLUR, height // _BLUR)
    means = [cv2.resize(pixels[:height, :width], squares, interpolation=cv2.INTER_AREA) for pixels in (a, b)]
    return float(cv2.absdiff(*means).max())
