"""Tiles that a TIFF lacks: nothing was scanned there, or a writer left them out of a reduced level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.pyramid.geometry import Region, Size


@dataclass(frozen=True)
class Grid:
    """The tiles of one level."""

    size: Size
    """Size of the level."""
    tile: Size
    counts: NDArray[np.uint64]
    """Bytes of each encoded tile, row by row; 0 where the file lacks the tile."""

    @property
    def columns(self) -> int:
        return -(-self.size.width // self.tile.width)

    def place(self, index: int) -> Region:
        """The part of a tile that lies inside the level."""
        row, column = divmod(index, self.columns)
        whole = Region(row * self.tile.height, column * self.tile.width, *self.tile)
        return whole.intersection(Region(0, 0, *self.size))


class Gaps:
    """Knows where level 0 was scanned, to distinguish a tile that a reduced level lacks from empty glass."""

    def __init__(self, grids: Sequence[Grid], downsamples: Sequence[float]) -> None:
        self._grids, self._downsamples = grids, downsamples
        base = grids[0]
        written = (base.counts > 0).reshape(-1, base.columns)
        sums = np.pad(written, ((1, 0), (1, 0))).cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32)
        self._written_above_left = None if written.all() else sums

    def was_scanned(self, level: int, index: int) -> bool:
        """Whether level 0 has a tile anywhere under tile ``index`` of ``level``."""
        sums = self._written_above_left
        if sums is None:
            return True
        place, base, scale = self._grids[level].place(index), self._grids[0], self._downsamples[level]
        rows, columns = sums.shape[0] - 1, sums.shape[1] - 1
        top, left = int(place.top * scale) // base.tile.height, int(place.left * scale) // base.tile.width
        bottom = min(rows, -(-int(np.ceil(place.bottom * scale)) // base.tile.height))
        right = min(columns, -(-int(np.ceil(place.right * scale)) // base.tile.width))
        return bool(sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left])

    def notices(self) -> tuple[str, ...]:
        """A line for each reduced level that lacks tiles where level 0 was scanned."""
        notices = []
        for level, grid in enumerate(self._grids):
            empty = np.flatnonzero(grid.counts == 0) if level else ()
            missing = sum(self.was_scanned(level, int(index)) for index in empty)
            if missing:
                notices.append(f"level {level} lacks {missing} of {grid.counts.size} tiles: made from the finer level")
        return tuple(notices)
