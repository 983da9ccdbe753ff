"""Which tiles of which levels a block owns: pure arithmetic on the plane's size and the block's core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.pyramid.blocks import TILE_PX
from wsi_ihc.pyramid.codecs import WHITE, Colour, Compression, TileCodec, halve
from wsi_ihc.pyramid.geometry import Size

PIECE_PX = TILE_PX // 2
"""Patches are stored in squares of this side. Whatever the core, a patch is a whole number of them."""


def level_sizes(size: Size) -> tuple[Size, ...]:
    """The plane and its halvings, sides rounded up, until one tile holds the whole."""
    sizes = [size]
    while max(sizes[-1]) > TILE_PX:
        height, width = sizes[-1]
        sizes.append(Size((height + 1) // 2, (width + 1) // 2))
    return tuple(sizes)


@dataclass(frozen=True)
class EncodedBlock:
    """What one block leaves behind.

    ``tiles`` are the encoded tiles that it owns alone, by (level, row, column) counted inside the block. ``patch`` is
    the block on the next coarser level, where it fills no whole tile, without loss: (h, w, 3) of at most patch_px, or
    None when the pyramid ends before.
    """

    tiles: dict[tuple[int, int, int], bytes]
    patch: NDArray[np.uint8] | None


@dataclass(frozen=True)
class StoreLayout:
    """A plane of ``size`` working pixels in blocks of ``core_px``, and how its tiles are written."""

    size: Size
    core_px: int
    compression: Compression = "jpeg"
    quality: int = 85
    glass: Colour = WHITE
    """What a tile without tissue looks like."""

    def __post_init__(self) -> None:
        if self.core_px <= 0 or self.core_px % TILE_PX:
            raise ValueError(f"core_px must be a positive multiple of {TILE_PX}, not {self.core_px}")
        if min(self.size) < 1:
            raise ValueError(f"a plane needs at least one pixel, not {self.size}")

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> StoreLayout:
        """The layout whose fields were written as JSON."""
        red, green, blue = facts["glass"]
        return cls(**{**facts, "size": Size(*facts["size"]), "glass": (red, green, blue)})

    @cached_property
    def codec(self) -> TileCodec:
        return TileCodec(self.compression, self.quality, TILE_PX, self.glass)

    @cached_property
    def levels(self) -> tuple[Size, ...]:
        return level_sizes(self.size)

    @cached_property
    def grid(self) -> Size:
        """Rows and columns of blocks."""
        return Size(-(-self.size.height // self.core_px), -(-self.size.width // self.core_px))

    @cached_property
    def patch_level(self) -> int:
        """The finest level on which a core is no whole number of tiles; finer ones belong to the blocks.

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
    def has_patches(self) -> bool:
        return self.patch_level < len(self.levels)

    def tile_grid(self, level: int) -> Size:
        """Rows and columns of tiles on ``level``."""
        height, width = self.levels[level]
        return Size(-(-height // TILE_PX), -(-width // TILE_PX))

    def core_tiles(self, level: int) -> int:
        """Tiles along the side of a core, on a level below the patch level."""
        return self.core_px // (TILE_PX << level)

    @cached_property
    def parts(self) -> dict[tuple[int, int, int], int]:
        """Every tile that a block owns, by (level, row, column) inside the block: which part of its shard it is.

        The tiles come first, finest level first, row by row. The pieces of the patch, ``PIECE_PX`` squared, follow on
        the patch level.
        """
        sides = {level: self.core_tiles(level) for level in range(min(self.patch_level, len(self.levels)))}
        if self.has_patches:
            sides[self.patch_level] = self.patch_px // PIECE_PX
        cells = ((level, row, column) for level, side in sides.items() for row, column in np.ndindex(side, side))
        return {cell: number for number, cell in enumerate(cells)}

    def inside(self, row: int, column: int) -> Size:
        """The part of a block's core that lies on the plane."""
        height = min(self.core_px, self.size.height - row * self.core_px)
        width = min(self.core_px, self.size.width - column * self.core_px)
        return Size(height, width)

    def occupied(self, blocks: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], ...]:
        """Per level, which tiles hold anything of the ``blocks`` (grid) marked True; the others are glass."""
        tiles = np.repeat(np.repeat(blocks, self.core_tiles(0), axis=0), self.core_tiles(0), axis=1)
        rows, columns = self.tile_grid(0)
        found = [tiles[:rows, :columns]]
        for level in range(1, len(self.levels)):
            rows, columns = self.tile_grid(level)
            padded = np.zeros((2 * rows, 2 * columns), bool)
            padded[: found[-1].shape[0], : found[-1].shape[1]] = found[-1]
            found.append(padded[0::2, 0::2] | padded[0::2, 1::2] | padded[1::2, 0::2] | padded[1::2, 1::2])
        return tuple(found)


def encode_block(pixels: NDArray[np.uint8], layout: StoreLayout) -> EncodedBlock:
    """Encodes a block from the part of its core that lies on the plane: ``pixels`` (h, w, 3).

    Every level is the 2x2 mean of the level below before any encoding. So the bytes of a tile are the same for every
    ``core_px``.
    """
    tiles: dict[tuple[int, int, int], bytes] = {}
    for level in range(min(layout.patch_level, len(layout.levels))):
        if level:
            pixels = halve(pixels)
        height, width = pixels.shape[:2]
        for row in range(-(-height // TILE_PX)):
            for column in range(-(-width // TILE_PX)):
                top, left = row * TILE_PX, column * TILE_PX
                tiles[level, row, column] = layout.codec.encode(pixels[top : top + TILE_PX, left : left + TILE_PX])
    return EncodedBlock(tiles, halve(pixels) if layout.has_patches else None)
