"""The levels above the blocks' own, made from the patches that the blocks left without loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.encoding import halve
from wsi_ihc.geometry import Region
from wsi_ihc.tiling import TILE_PX

if TYPE_CHECKING:
    from wsi_ihc.store.tilestore import TileStore


def complete_levels(store: TileStore) -> None:
    """Encodes and stores every tile of the patch level and above that is not all white.

    Depth first: a tile is made from its four children as soon as they are there. Memory bound: one tile and a
    quarter per level, and the block marks, one byte a block.

    Raises:
        StorageError: a patch is damaged, or the disk refuses.
    """
    layout = store.layout
    if layout.has_patches:
        finished = store.finished_mask()
        _Builder(store, finished, layout.occupied(finished)).tile(len(layout.levels) - 1, 0, 0)


class _Builder:
    def __init__(self, store: TileStore, finished: NDArray[np.bool_], occupied: tuple[NDArray[np.bool_], ...]) -> None:
        self._store = store
        self._finished = finished
        self._occupied = occupied

    def tile(self, level: int, row: int, column: int) -> NDArray[np.uint8] | None:
        """Makes and stores a tile and everything under it; its part on the plane, or None when all of it is white."""
        rows, columns = self._occupied[level].shape
        if row >= rows or column >= columns or not self._occupied[level][row, column]:
            return None
        layout = self._store.layout
        height, width = layout.levels[level]
        height, width = min(TILE_PX, height - row * TILE_PX), min(TILE_PX, width - column * TILE_PX)
        pixels = np.full((height, width, 3), 255, np.uint8)
        if level == layout.patch_level:
            self._paste_patches(pixels, Region(row * TILE_PX, column * TILE_PX, height, width))
        else:
            self._paste_children(pixels, level, row, column)
        self._store.write_tile(level, row, column, layout.codec.encode(pixels))
        return pixels

    def _paste_children(self, pixels: NDArray[np.uint8], level: int, row: int, column: int) -> None:
        half = TILE_PX // 2
        for down, right in np.ndindex(2, 2):
            child = self.tile(level - 1, 2 * row + down, 2 * column + right)
            if child is not None:
                pixels[down * half : (down + 1) * half, right * half : (right + 1) * half] = halve(child)

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
