"""The levels above the blocks' own, made from the patches that the blocks left without loss."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.conversion.store.shards import ShardWriter
from wsi_ihc.machine.processors import processors
from wsi_ihc.pyramid.blocks import TILE_PX
from wsi_ihc.pyramid.codecs import halve
from wsi_ihc.pyramid.geometry import Region

if TYPE_CHECKING:
    from wsi_ihc.conversion.store.tilestore import TileStore


_PARTS = 16
"""Enough of them to keep the threads busy."""


def complete_levels(store: TileStore) -> None:
    """Encodes and stores every tile of the patch level and above that is not all glass.

    Depth first: a tile is made from its four children as soon as they are there. The slide's parts are shared among
    threads. Memory bound: one tile and a quarter per level and thread, a quarter of a tile for each of up to a
    hundred parts, and the block marks, one byte a block.

    Raises:
        StorageError: a patch is damaged, or the disk refuses.
    """
    layout = store.layout
    if layout.has_patches:
        finished = store.finished_mask()
        levels = range(layout.patch_level, len(layout.levels))
        with ExitStack() as stack:
            shards = {level: stack.enter_context(store.new_level(level)) for level in levels}
            _Builder(store, shards, finished, layout.occupied(finished)).build()


class _Builder:
    def __init__(
        self,
        store: TileStore,
        shards: Mapping[int, ShardWriter],
        finished: NDArray[np.bool_],
        occupied: tuple[NDArray[np.bool_], ...],
    ) -> None:
        self._store = store
        self._shards = shards
        self._finished = finished
        self._occupied = occupied
        self._quarters: dict[tuple[int, int, int], NDArray[np.uint8] | None] = {}

    def build(self) -> None:
        top = len(self._occupied) - 1
        levels = range(self._store.layout.patch_level, top + 1)
        split = max((level for level in levels if self._occupied[level].size >= _PARTS), default=top)
        parts = [(split, row, column) for row, column in np.ndindex(self._occupied[split].shape)]
        with ThreadPoolExecutor(min(8, processors())) as pool:
            quarters = list(pool.map(lambda part: self._quarter(*part), parts))
        self._quarters = dict(zip(parts, quarters, strict=True))
        if split < top:
            self._quarter(top, 0, 0)

    def _quarter(self, level: int, row: int, column: int) -> NDArray[np.uint8] | None:
        """A tile's part on the plane on the next coarser level, or None when all of it is glass.

        The tile and everything under it is made and stored, unless that is done.
        """
        rows, columns = self._occupied[level].shape
        if row >= rows or column >= columns or not self._occupied[level][row, column]:
            return None
        if (level, row, column) in self._quarters:
            return self._quarters[level, row, column]
        layout = self._store.layout
        height, width = layout.levels[level]
        height, width = min(TILE_PX, height - row * TILE_PX), min(TILE_PX, width - column * TILE_PX)
        pixels = np.full((height, width, 3), layout.glass, np.uint8)
        if level == layout.patch_level:
            self._paste_patches(pixels, Region(row * TILE_PX, column * TILE_PX, height, width))
        else:
            self._paste_quarters(pixels, level, row, column)
        self._shards[level].write(row * columns + column, layout.codec.encode(pixels))
        return halve(pixels)

    def _paste_quarters(self, pixels: NDArray[np.uint8], level: int, row: int, column: int) -> None:
        half = TILE_PX // 2
        for down, right in np.ndindex(2, 2):
            quarter = self._quarter(level - 1, 2 * row + down, 2 * column + right)
            if quarter is not None:
                height, width = quarter.shape[:2]
                pixels[down * half : down * half + height, right * half : right * half + width] = quarter

    def _paste_patches(self, pixels: NDArray[np.uint8], tile: Region) -> None:
        """Patches need not divide a tile: a core of 1536 leaves patches of 768."""
        side = self._store.layout.patch_px
        rows, columns = self._finished.shape
        for row in range(tile.top // side, min(rows, -(-tile.bottom // side))):
            for column in range(tile.left // side, min(columns, -(-tile.right // side))):
                if self._finished[row, column]:
                    patch = Region(row * side, column * side, side, side)
                    common = tile.intersection(patch)
                    pixels[common.relative_to(tile).slices] = self._store.read_patch(row, column)[
                        common.relative_to(patch).slices
                    ]
