"""Depth-first walks over the tiles of a pyramid: a tile is made from the up to four tiles below it.

Each tile is made as soon as its children are, so memory holds one unfinished tile a level, whatever the pyramid's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np

from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.pyramid.levels import TILE_PX, Pixels

Made = TypeVar("Made")

_PARTS = 16
"""A pyramid is cut into at least so many subtrees, to keep the threads busy, and into at most about 60."""


class Cell(NamedTuple):
    """The place of a tile in a pyramid."""

    level: int
    row: int
    column: int


Join = Callable[[Cell, Iterable[tuple[Cell, Made]]], Made]
"""Makes a tile from its children. They are made one by one while they are iterated, and not at all if they are not."""


def fold(grids: Sequence[Size], top: Cell, leaf: Callable[[Cell], Made], join: Join[Made], *, floor: int = 0) -> Made:
    """Makes ``top`` and, before it, everything under it down to level ``floor``.

    ``grids`` holds the rows and columns of tiles on each level. ``leaf`` makes a tile of the floor, ``join`` one above.
    """
    if top.level == floor:
        return leaf(top)
    return join(top, ((cell, fold(grids, cell, leaf, join, floor=floor)) for cell in children(grids, top)))


def fold_in_threads(
    grids: Sequence[Size], leaf: Callable[[Cell], Made], join: Join[Made], *, floor: int = 0, threads: int
) -> list[Made]:
    """Makes every tile of the last level and everything under it; subtrees are shared among ``threads``.

    Memory bound: one unfinished tile per level and thread, and what up to about 60 subtrees gave.
    """
    last = len(grids) - 1
    split = max((level for level in range(floor, last + 1) if _area(grids[level]) >= _PARTS), default=last)
    parts = [Cell(split, row, column) for row, column in np.ndindex(grids[split])]
    with ThreadPoolExecutor(threads) as pool:
        made = dict(zip(parts, pool.map(lambda part: fold(grids, part, leaf, join, floor=floor), parts), strict=True))
    tops = [Cell(last, row, column) for row, column in np.ndindex(grids[last])]
    return [fold(grids, top, made.__getitem__, join, floor=split) for top in tops]


def leaves(grids: Sequence[Size], top: Cell, *, floor: int = 0) -> Iterator[Cell]:
    """The cells of level ``floor`` in the order in which ``fold`` makes them."""
    if top.level == floor:
        yield top
    else:
        for cell in children(grids, top):
            yield from leaves(grids, cell, floor=floor)


def children(grids: Sequence[Size], cell: Cell) -> Iterator[Cell]:
    """The up to four cells below ``cell``, row by row."""
    rows, columns = grids[cell.level - 1]
    for down, right in np.ndindex(2, 2):
        row, column = 2 * cell.row + down, 2 * cell.column + right
        if row < rows and column < columns:
            yield Cell(cell.level - 1, row, column)


def paste_quarter(tile: Pixels, cell: Cell, quarter: Pixels, *, tile_px: int = TILE_PX) -> None:
    """Puts ``quarter``, the halved pixels of ``cell``, into its place in the tile above it.

    ``tile`` (h, w, channels) and ``quarter`` may end early, at the edge of their levels.
    """
    top, left = cell.row % 2 * (tile_px // 2), cell.column % 2 * (tile_px // 2)
    height, width = quarter.shape[:2]
    tile[top : top + height, left : left + width] = quarter


def _area(grid: Size) -> int:
    return grid.height * grid.width
