"""One layer of a block as the parts of its shard: encoded tiles, and a patch without loss for the coarser levels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wsi_ihc.conversion.store.layout import PIECE_PX, StoreLayout
from wsi_ihc.pyramid.layers import Layer
from wsi_ihc.pyramid.levels import TILE_PX, Pixels, halve

_MARK = b"RAW"
"""Begins a piece of a patch, followed by the number of channels; no tile begins so."""


@dataclass(frozen=True)
class EncodedPlane:
    """One layer of one block.

    ``tiles`` are the encoded tiles that the block owns, by (level, row, column) counted inside the block. ``patch`` is
    the block on the patch level, where it fills no whole tile: (h, w, channels) of at most patch_px, or None when the
    pyramid ends before.
    """

    tiles: dict[tuple[int, int, int], bytes]
    patch: Pixels | None

    def parts(self, layout: StoreLayout) -> list[bytes | None]:
        """What the shard holds of it, in the order of ``layout.parts``; None lies beyond the plane."""
        parts: list[bytes | None] = [self.tiles.get(cell) for cell in layout.parts]
        if self.patch is not None:
            pieces = list(pieces_of(self.patch, layout.patch_px))
            parts[-len(pieces) :] = pieces
        return parts


def encode_plane(pixels: Pixels, layout: StoreLayout, layer: Layer) -> EncodedPlane:
    """Encodes one layer of a block from the part of its core that lies on the plane: ``pixels`` (h, w, channels).

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
                tiles[level, row, column] = layer.codec.encode(pixels[top : top + TILE_PX, left : left + TILE_PX])
    return EncodedPlane(tiles, halve(pixels) if layout.coarse_levels else None)


def pieces_of(patch: Pixels, patch_px: int) -> Iterator[bytes]:
    """The pieces of a patch (h, w, channels) row by row, zeros up to ``patch_px``."""
    channels = patch.shape[2]
    whole = np.zeros((patch_px, patch_px, channels), np.uint8)
    whole[: patch.shape[0], : patch.shape[1]] = patch
    for top in range(0, patch_px, PIECE_PX):
        for left in range(0, patch_px, PIECE_PX):
            yield _MARK + bytes([channels]) + whole[top : top + PIECE_PX, left : left + PIECE_PX].tobytes()


def is_piece(data: bytes) -> bool:
    """Whether ``data`` is a whole piece."""
    start = len(_MARK) + 1
    return data.startswith(_MARK) and len(data) == start + PIECE_PX * PIECE_PX * data[start - 1]


def piece_pixels(data: bytes) -> Pixels:
    """(PIECE_PX, PIECE_PX, channels) of a whole piece."""
    return np.frombuffer(data, np.uint8, offset=len(_MARK) + 1).reshape(PIECE_PX, PIECE_PX, -1)
