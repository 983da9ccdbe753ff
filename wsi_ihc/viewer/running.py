"""A conversion that is still running, as a picture that grows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.conversion.store import TileStore
from wsi_ihc.errors import StorageError
from wsi_ihc.pyramid.blocks import BlockGrid
from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.pyramid.layers import STAINED
from wsi_ihc.tissue import TissueMask
from wsi_ihc.viewer.pyramid_tiles import PyramidTiles

STEPS = 40
"""Times that the picture is renewed from the first block to the last: a coarse tile reads all blocks below it."""
LOOK_S = 1.0
"""The folder is listed at most this often."""


@dataclass
class RunningTiles:
    """JPEG tiles of the blocks that were finished when the folder was last looked at.

    See :class:`wsi_ihc.viewer.pictures.TileSource`. What is not stained yet is white.
    """

    store: TileStore
    clock: Callable[[], float] = time.monotonic
    _shown: PyramidTiles | None = None
    _looked: float = -np.inf
    _lock: Lock = field(default_factory=Lock, repr=False)

    @property
    def size(self) -> Size:
        return self.store.layout.size

    @property
    def levels(self) -> int:
        return len(self.store.layout.levels)

    @property
    def side(self) -> int:
        return self._latest().side

    @property
    def version(self) -> str:
        return self._latest().version

    def tile(self, level: int, row: int, column: int) -> bytes:
        return self._latest().tile(level, row, column)

    def finished(self) -> NDArray[np.bool_]:
        """Which blocks of the grid are finished now.

        Raises:
            StorageError: the store has vanished, as it does when the output is complete.
        """
        return self.store.files.finished()

    @cached_property
    def wanted(self) -> NDArray[np.bool_]:
        """Which blocks of the grid hold tissue, and will be stained."""
        layout, tissue = self.store.layout, self.store.finding("tissue")
        grid = BlockGrid(layout.size, layout.core_px, 0)
        if tissue is None:
            return np.ones(layout.grid, bool)
        mask = TissueMask(tissue["pixels"], float(tissue["downsample"]), layout.size)
        wanted = np.zeros(layout.grid, bool)
        for block in grid:
            wanted[block.row, block.column] = mask.any(block.core)
        return wanted

    def blocks(self, which: NDArray[np.bool_]) -> list[Region]:
        """The cores of the marked blocks, inside the plane."""
        plane = Region(0, 0, *self.size)
        grid = BlockGrid(self.size, self.store.layout.core_px, 0)
        return [block.core.intersection(plane) for block in grid if which[block.row, block.column]]

    def _latest(self) -> PyramidTiles:
        """The picture, made again when enough blocks were finished since. The last one stays when the store is gone."""
        with self._lock:
            if self._shown is None or self.clock() - self._looked > LOOK_S:
                self._looked = self.clock()
                try:
                    step = int(STEPS * self.finished().sum() / max(1, self.wanted.sum()))
                    version = f"{self.store.path.stat().st_ino}-{step}"
                    if self._shown is None or self._shown.version != version:
                        self._shown = PyramidTiles(self.store.pyramid(STAINED), version)
                except (StorageError, OSError):
                    if self._shown is None:
                        raise
            return self._shown


def running_tiles(store: Path) -> RunningTiles:
    """The tiles of the store at ``store``.

    Raises:
        StorageError: there is no store.
    """
    return RunningTiles(TileStore.attach(store))
