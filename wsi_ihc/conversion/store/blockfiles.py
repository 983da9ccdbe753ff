"""The files of a store: shards of blocks and of coarse levels, read and written by several processes at once."""

from __future__ import annotations

import os
import weakref
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.conversion.store.files import storage_errors, write_whole
from wsi_ihc.conversion.store.layout import PIECE_PX, StoreLayout
from wsi_ihc.conversion.store.metadata import BLOCKS, block_at, block_key, level_key
from wsi_ihc.conversion.store.planes import is_piece, piece_pixels
from wsi_ihc.conversion.store.shards import ShardWriter, new_shard, read_from_shard
from wsi_ihc.errors import StorageError
from wsi_ihc.pyramid.folding import Cell
from wsi_ihc.pyramid.levels import Pixels


class DamagedBlockError(StorageError):
    """A finished block that the disk no longer gives back as it was written."""

    def __init__(self, path: Path, row: int, column: int) -> None:
        super().__init__(
            f"{path}: block {row}, {column} was damaged on the disk; run the same command again, "
            "it makes this block again"
        )
        self.row, self.column = row, column


@dataclass(frozen=True)
class BlockFiles:
    """The files below the folder ``path``. Reading changes nothing; all members may be used by several threads."""

    path: Path
    layout: StoreLayout

    def held(self) -> BlockFiles:
        """Returns self, with its folder opened for writing."""
        assert self._handle
        return self

    def finished(self) -> NDArray[np.bool_]:
        """Which blocks of the grid are finished; one listing of one folder."""
        mask = np.zeros(self.layout.grid, bool)
        with storage_errors(self.path), os.scandir(f"{self._root}/{BLOCKS}") as entries:
            for entry in entries:
                if cell := block_at(entry.name):
                    mask[cell] = True
        return mask

    def tile(self, layer: int, row: int, column: int, cell: Cell) -> bytes:
        """An encoded tile of a finished block, by its place inside the block.

        Raises:
            DamagedBlockError: the tile or its block is damaged or missing.
        """
        (data,) = self._block_parts(layer, row, column, [cell])
        if self.layout.layers[layer].codec.is_whole(data):
            return data
        raise DamagedBlockError(self.path, row, column)

    def patch(self, layer: int, row: int, column: int) -> Pixels:
        """The patch (patch_px, patch_px, channels) of a finished block.

        Raises:
            DamagedBlockError: the patch or its block is damaged or missing.
        """
        side, channels = self.layout.patch_px // PIECE_PX, self.layout.layers[layer].channels
        cells = [Cell(self.layout.patch_level, *cell) for cell in np.ndindex(side, side)]
        patch = np.empty((side, PIECE_PX, side, PIECE_PX, channels), np.uint8)
        for cell, data in zip(cells, self._block_parts(layer, row, column, cells), strict=True):
            if not is_piece(data):
                raise DamagedBlockError(self.path, row, column)
            patch[cell.row, :, cell.column] = piece_pixels(data)
        return patch.reshape(self.layout.patch_px, self.layout.patch_px, channels)

    def coarse_tile(self, layer: int, cell: Cell) -> bytes | None:
        """An encoded tile of a coarse level; None where none was stored, or it is damaged."""
        rows, columns = self.layout.tile_grids[cell.level]
        key = level_key(self.layout.layers[layer].name, cell.level)
        (data,) = self._parts(key, rows * columns, [cell.row * columns + cell.column])
        return data if self.layout.layers[layer].codec.is_whole(data) else None

    @contextmanager
    def new_level(self, layer: int, level: int) -> Generator[ShardWriter]:
        """Takes the tiles of a coarse level, numbered row by row; the level is in its place when the context ends."""
        rows, columns = self.layout.tile_grids[level]
        key = level_key(self.layout.layers[layer].name, level)
        with storage_errors(self.path), new_shard(key, rows * columns, folder=self._handle) as shard:
            yield shard

    def write(self, key: str, data: bytes) -> None:
        """Writes the file ``key``, whole or not at all."""
        with storage_errors(self.path):
            write_whole(key, data, folder=self._handle)

    def read(self, key: str) -> bytes:
        """The bytes of the file ``key``; empty when it is absent."""
        with storage_errors(self.path):
            try:
                with open(f"{self._root}/{key}", "rb", buffering=0) as file:
                    return file.read()
            except FileNotFoundError:
                return b""

    def forget(self, row: int, column: int) -> None:
        """Makes a block unfinished again."""
        with storage_errors(self.path):
            Path(self._root, block_key(row, column)).unlink(missing_ok=True)

    def check_place(self) -> None:
        """Raises StorageError when another run has put a store of its own under this name."""
        with storage_errors(self.path):
            in_place = os.path.samestat(os.stat(self.path), os.fstat(self._handle))
        if not in_place:
            raise StorageError(f"{self.path}: another run has started again from the beginning here; this one ends")

    @cached_property
    def _handle(self) -> int:
        """The open folder, for writing. A worker that was taken for dead may wake when another run has put a store of
        its own under this name; what it still writes must not land there.
        """
        with storage_errors(self.path):
            handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        weakref.finalize(self, os.close, handle)
        return handle

    @cached_property
    def _root(self) -> str:
        return str(self.path)

    def _block_parts(self, layer: int, row: int, column: int, cells: Iterable[Cell]) -> list[bytes]:
        """Parts of one layer of a block; empty where one is damaged or absent."""
        first, numbers = layer * len(self.layout.parts), self.layout.parts
        return self._parts(block_key(row, column), self.layout.shard_parts, [first + numbers[cell] for cell in cells])

    def _parts(self, key: str, count: int, numbers: Sequence[int]) -> list[bytes]:
        """Parts of a shard of ``count``; empty where one is damaged or absent."""
        with storage_errors(self.path):
            try:
                descriptor = os.open(f"{self._root}/{key}", os.O_RDONLY)
            except FileNotFoundError:
                return [b""] * len(numbers)
            try:
                return list(read_from_shard(descriptor, count, numbers))
            finally:
                os.close(descriptor)
