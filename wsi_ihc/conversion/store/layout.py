"""Which tiles of which levels a block owns: pure arithmetic on the size of the plane and the core of a block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.pyramid.codecs import Colour
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.pyramid.layers import STAINED, Layer
from wsi_ihc.pyramid.levels import TILE_PX, level_sizes, tile_grid

PIECE_PX = TILE_PX // 2
"""Patches are stored in squares of this side. Whatever the core, a patch is a whole number of them."""


@dataclass(frozen=True)
class StoreLayout:
    """A plane of ``size`` working pixels in blocks of ``core_px``, and the layers that are kept of it."""

    size: Size
    core_px: int
    layers: tuple[Layer, ...] = (Layer(STAINED),)
    mpp: float | None = None
    """Micrometres per working pixel."""

    def __post_init__(self) -> None:
        if self.core_px <= 0 or self.core_px % TILE_PX:
            raise ValueError(f"core_px must be a positive multiple of {TILE_PX}, not {self.core_px}")
        if min(self.size) < 1:
            raise ValueError(f"a plane needs at least one pixel, not {self.size}")
        names = [layer.name for layer in self.layers]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a store needs one layer or several of different names, not {names}")

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> StoreLayout:
        """The layout whose fields were written as JSON.

        Raises:
            ValueError, KeyError, TypeError: the facts describe no layout.
        """
        layers = tuple(Layer(**{**layer, "fill": tuple(layer["fill"])}) for layer in facts["layers"])
        return cls(**{**facts, "size": Size(*facts["size"]), "layers": layers})

    def layer(self, name: str) -> Layer:
        """The layer of this name.

        Raises:
            KeyError: there is none.
        """
        return self.layers[self.layer_number(name)]

    def layer_number(self, name: str) -> int:
        """The place of a layer among the layers; its parts follow in this order in a block's shard.

        Raises:
            KeyError: there is none of this name.
        """
        for number, layer in enumerate(self.layers):
            if layer.name == name:
                return number
        raise KeyError(name)

    def with_fill(self, name: str, fill: Colour) -> StoreLayout:
        """The same layout with another colour of empty glass in the layer of this name."""
        layers = tuple(replace(layer, fill=fill) if layer.name == name else layer for layer in self.layers)
        return replace(self, layers=layers)

    @cached_property
    def levels(self) -> tuple[Size, ...]:
        """Size of each level, finest first."""
        return level_sizes(self.size)

    @cached_property
    def tile_grids(self) -> tuple[Size, ...]:
        """Rows and columns of tiles on each level."""
        return tuple(tile_grid(size) for size in self.levels)

    @cached_property
    def grid(self) -> Size:
        """Rows and columns of blocks."""
        return Size(-(-self.size.height // self.core_px), -(-self.size.width // self.core_px))

    @cached_property
    def patch_level(self) -> int:
        """The finest level on which a core is no whole number of tiles; blocks own the tiles of all finer levels.

        It may lie beyond the last level: a small plane needs no patches.
        """
        level = 0
        while self.core_px % (TILE_PX << level) == 0:
            level += 1
        return level

    @property
    def patch_px(self) -> int:
        """Side of a block on the patch level."""
        return self.core_px >> self.patch_level

    @property
    def coarse_levels(self) -> range:
        """The levels whose tiles no block owns, from the patch level on; none for a small plane."""
        return range(self.patch_level, len(self.levels))

    def core_tiles(self, level: int) -> int:
        """Tiles along the side of a core, on a level below the patch level."""
        return self.core_px // (TILE_PX << level)

    @cached_property
    def parts(self) -> dict[tuple[int, int, int], int]:
        """What one layer of a block consists of: the number of each part by (level, row, column) inside the block.

        The tiles that the block owns come first, finest level first, row by row. The pieces of its patch, ``PIECE_PX``
        squared, follow on the patch level.
        """
        sides = {level: self.core_tiles(level) for level in range(min(self.patch_level, len(self.levels)))}
        if self.coarse_levels:
            sides[self.patch_level] = self.patch_px // PIECE_PX
        cells = ((level, row, column) for level, side in sides.items() for row, column in np.ndindex(side, side))
        return {cell: number for number, cell in enumerate(cells)}

    @property
    def shard_parts(self) -> int:
        """Parts of a block's shard: those of every layer."""
        return len(self.layers) * len(self.parts)

    def inside(self, row: int, column: int) -> Size:
        """The part of a block's core that lies on the plane."""
        height = min(self.core_px, self.size.height - row * self.core_px)
        width = min(self.core_px, self.size.width - column * self.core_px)
        return Size(height, width)

    def occupied(self, blocks: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], ...]:
        """Per level, which tiles hold anything of the ``blocks`` (grid) marked True; the others are empty glass."""
        tiles = np.repeat(np.repeat(blocks, self.core_tiles(0), axis=0), self.core_tiles(0), axis=1)
        rows, columns = self.tile_grids[0]
        found = [tiles[:rows, :columns]]
        for rows, columns in self.tile_grids[1:]:
            padded = np.zeros((2 * rows, 2 * columns), bool)
            padded[: found[-1].shape[0], : found[-1].shape[1]] = found[-1]
            found.append(padded[0::2, 0::2] | padded[0::2, 1::2] | padded[1::2, 0::2] | padded[1::2, 1::2])
        return tuple(found)
