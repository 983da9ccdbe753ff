"""The one seam between those who make tiles and those who take them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from wsi_ihc.pyramid.codecs import TileCodec
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.pyramid.levels import tile_grid


class TilePyramid(Protocol):
    """Encoded tiles by level, row and column.

    The store of a run, an output on disk and a phantom are such pyramids; writers, the verification and the viewer
    need nothing else. ``tile`` may be called from many threads at once.
    """

    @property
    def levels(self) -> tuple[Size, ...]:
        """Size of each level, pixels, finest first."""

    @property
    def codec(self) -> TileCodec:
        """How the tiles are encoded."""

    @property
    def mpp(self) -> float | None:
        """Micrometres per pixel of level 0; None where it is unknown."""

    def tile(self, level: int, row: int, column: int) -> bytes | None:
        """The encoded tile; None where nothing but empty glass is: ``codec.fill_tile`` stands there."""


def level_tiles(pyramid: TilePyramid, level: int) -> Iterator[bytes]:
    """Every tile of a level row by row, empty glass included."""
    fill = pyramid.codec.fill_tile
    for row, column in np.ndindex(tile_grid(pyramid.levels[level], pyramid.codec.side)):
        tile = pyramid.tile(level, row, column)
        yield fill if tile is None else tile
