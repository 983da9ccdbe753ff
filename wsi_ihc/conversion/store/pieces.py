"""Patches without loss: raw pixels in square pieces, so that they fit among the tiles of a shard."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.conversion.store.layout import PIECE_PX

_MARK = b"RGB\0"
"""What a piece begins with; no tile does."""


def pieces_of(patch: NDArray[np.uint8], patch_px: int) -> Iterator[bytes]:
    """The pieces of a patch (h, w, 3) row by row, white up to ``patch_px``."""
    whole = np.full((patch_px, patch_px, 3), 255, np.uint8)
    whole[: patch.shape[0], : patch.shape[1]] = patch
    for top in range(0, patch_px, PIECE_PX):
        for left in range(0, patch_px, PIECE_PX):
            yield _MARK + whole[top : top + PIECE_PX, left : left + PIECE_PX].tobytes()


def is_piece(data: bytes) -> bool:
    """Whether it is a whole piece."""
    return data.startswith(_MARK) and len(data) == len(_MARK) + PIECE_PX * PIECE_PX * 3


def piece_pixels(data: bytes) -> NDArray[np.uint8]:
    """(PIECE_PX, PIECE_PX, 3) of what ``is_piece``."""
    return np.frombuffer(data, np.uint8, offset=len(_MARK)).reshape(PIECE_PX, PIECE_PX, 3)
