"""The coarse levels, whose tiles no block owns: made from the patches that the blocks left without loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.conversion.store.blockfiles import BlockFiles
from wsi_ihc.machine.processors import processors
from wsi_ihc.pyramid.folding import Cell, fold, fold_in_threads, paste_quarter
from wsi_ihc.pyramid.geometry import Region
from wsi_ihc.pyramid.levels import TILE_PX, Pixels, halve

Visit = Callable[[Cell, Pixels], None]


def complete_levels(files: BlockFiles) -> None:
    """Encodes and stores every tile of the coarse levels that is not all empty glass, layer by layer.

    Memory bound: one tile and a quarter per level and thread, a quarter of a tile for each of up to about 60 subtrees,
    and one byte a block.

    Raises:
        DamagedBlockError: a patch is damaged.
        StorageError: the disk refuses.
    """
    finished = files.finished()
    for number in range(len(files.layout.layers)):
        CoarseTiles(files, number, finished).store_all()


@dataclass(frozen=True)
class CoarseTiles:
    """Makes the tiles of the coarse levels of one layer from the patches of the ``finished`` blocks (grid)."""

    files: BlockFiles
    layer: int
    finished: NDArray[np.bool_]

    def store_all(self) -> None:
        """Encodes and stores every tile that is not all empty glass."""
        layout, codec = self.files.layout, self.files.layout.layers[self.layer].codec
        if not layout.coarse_levels:
            return
        with ExitStack() as stack:
            shards = {
                level: stack.enter_context(self.files.new_level(self.layer, level)) for level in layout.coarse_levels
            }

            def store(cell: Cell, pixels: Pixels) -> None:
                columns = layout.tile_grids[cell.level].width
                shards[cell.level].write(cell.row * columns + cell.column, codec.encode(pixels))

            fold_in_threads(
                layout.tile_grids,
                lambda cell: self._from_patches(cell, store),
                lambda cell, below: self._from_quarters(cell, below, store),
                floor=layout.patch_level,
                threads=min(8, processors()),
            )

    def make(self, cell: Cell) -> Pixels:
        """The part of one tile that lies on the plane, made from all patches under it."""
        made: list[Pixels] = []

        def keep(visited: Cell, pixels: Pixels) -> None:
            if visited == cell:
                made.append(pixels)

        layout = self.files.layout
        fold(
            layout.tile_grids,
            cell,
            lambda cell: self._from_patches(cell, keep),
            lambda cell, below: self._from_quarters(cell, below, keep),
            floor=layout.patch_level,
        )
        return made[0] if made else self._glass(cell)

    def _from_patches(self, cell: Cell, visit: Visit) -> Pixels | None:
        """A tile of the patch level, halved for the tile above it; None when it is all empty glass.

        Patches need not divide a tile: a core of 1536 leaves patches of 768.
        """
        if not self._occupied[cell.level][cell.row, cell.column]:
            return None
        pixels = self._glass(cell)
        tile = Region(cell.row * TILE_PX, cell.column * TILE_PX, *pixels.shape[:2])
        side = self.files.layout.patch_px
        rows, columns = self.finished.shape
        for row in range(tile.top // side, min(rows, -(-tile.bottom // side))):
            for column in range(tile.left // side, min(columns, -(-tile.right // side))):
                if self.finished[row, column]:
                    patch = Region(row * side, column * side, side, side)
                    common = tile.intersection(patch)
                    patch_pixels = self.files.patch(self.layer, row, column)
                    pixels[common.relative_to(tile).slices] = patch_pixels[common.relative_to(patch).slices]
        visit(cell, pixels)
        return halve(pixels)

    def _from_quarters(self, cell: Cell, below: Iterable[tuple[Cell, Pixels | None]], visit: Visit) -> Pixels | None:
        """A tile above the patch level, halved for the tile above it; None when it is all empty glass."""
        if not self._occupied[cell.level][cell.row, cell.column]:
            return None
        pixels = self._glass(cell)
        for child, quarter in below:
            if quarter is not None:
                paste_quarter(pixels, child, quarter)
        visit(cell, pixels)
        return halve(pixels)

    @cached_property
    def _occupied(self) -> tuple[NDArray[np.bool_], ...]:
        return self.files.layout.occupied(self.finished)

    def _glass(self, cell: Cell) -> Pixels:
        """Empty glass on the part of a tile that lies on the plane."""
        layer, (height, width) = self.files.layout.layers[self.layer], self.files.layout.levels[cell.level]
        height, width = min(TILE_PX, height - cell.row * TILE_PX), min(TILE_PX, width - cell.column * TILE_PX)
        return np.full((height, width, layer.channels), layer.fill, np.uint8)
