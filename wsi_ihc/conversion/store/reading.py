"""A store as a pyramid: its encoded tiles, also while the run still goes on."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.conversion.store.blockfiles import BlockFiles, DamagedBlockError
from wsi_ihc.conversion.store.coarse import CoarseTiles, complete_levels
from wsi_ihc.pyramid.codecs import TileCodec
from wsi_ihc.pyramid.folding import Cell
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.pyramid.pyramid import TilePyramid


@dataclass(frozen=True)
class StorePyramid:
    """One layer of a store as far as it had got when the object was made; a `TilePyramid`.

    Make it again to see the blocks that were finished since. A coarse tile that is not in the store yet is made from
    the patches under it each time it is asked for: that reads 200 kB a block.
    """

    files: BlockFiles
    layer: int
    finished: NDArray[np.bool_]
    """Which blocks of the grid were finished."""

    @property
    def levels(self) -> tuple[Size, ...]:
        return self.files.layout.levels

    @property
    def codec(self) -> TileCodec:
        return self.files.layout.layers[self.layer].codec

    @property
    def mpp(self) -> float | None:
        return self.files.layout.mpp

    def tile(self, level: int, row: int, column: int) -> bytes | None:
        """The encoded tile; None where no finished block reaches.

        Raises:
            DamagedBlockError: a finished block is damaged or has vanished.
        """
        if not self._occupied[level][row, column]:
            return None
        layout = self.files.layout
        if level >= layout.patch_level:
            return self._coarse_tile(Cell(level, row, column))
        tiles = layout.core_tiles(level)
        (block_row, row), (block_column, column) = divmod(row, tiles), divmod(column, tiles)
        return self.files.tile(self.layer, block_row, block_column, Cell(level, row, column))

    def _coarse_tile(self, cell: Cell) -> bytes:
        stored = self.files.coarse_tile(self.layer, cell)
        if stored is not None:
            return stored
        return self.codec.encode(CoarseTiles(self.files, self.layer, self.finished).make(cell))

    @cached_property
    def _occupied(self) -> tuple[NDArray[np.bool_], ...]:
        return self.files.layout.occupied(self.finished)


@dataclass(frozen=True)
class _Completing:
    """A pyramid whose coarse tiles wait until all of them are stored."""

    pyramid: StorePyramid
    completed: Future[None]

    @property
    def levels(self) -> tuple[Size, ...]:
        return self.pyramid.levels

    @property
    def codec(self) -> TileCodec:
        return self.pyramid.codec

    @property
    def mpp(self) -> float | None:
        return self.pyramid.mpp

    def tile(self, level: int, row: int, column: int) -> bytes | None:
        if level in self.pyramid.files.layout.coarse_levels:
            self.completed.result()
        return self.pyramid.tile(level, row, column)


@contextmanager
def finished_pyramids(files: BlockFiles) -> Generator[dict[str, TilePyramid]]:
    """The pyramid of every layer by its name, once the last block is stored: for the writer of the output.

    The coarse levels are made meanwhile by threads of their own. A block that proves damaged is forgotten, so that the
    next run makes it again.

    Raises:
        DamagedBlockError: a tile or patch of a finished block is damaged or missing.
        StorageError: the disk refuses.
    """
    finished = files.finished()
    try:
        with ThreadPoolExecutor(1) as beside:
            completed = beside.submit(complete_levels, files)
            yield {
                layer.name: _Completing(StorePyramid(files, number, finished), completed)
                for number, layer in enumerate(files.layout.layers)
            }
    except DamagedBlockError as error:
        files.forget(error.row, error.column)
        raise
