"""The levels of a pyramid: each has half the width and height of the level below it, rounded up."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.pyramid.geometry import Size

Pixels = NDArray[np.uint8]
"""(height, width, channels)."""

TILE_PX = 512
"""Side of a tile in the outputs of wsi-ihc."""

_EXACT_CHANNELS = (1, 3, 4)
"""For these OpenCV's area filter rounds halves up; for others it rounds them to even."""


def level_sizes(size: Size, tile_px: int = TILE_PX) -> tuple[Size, ...]:
    """Sizes of all levels, finest first, down to the first that fits in one tile."""
    sizes = [size]
    while max(sizes[-1]) > tile_px:
        height, width = sizes[-1]
        sizes.append(Size((height + 1) // 2, (width + 1) // 2))
    return tuple(sizes)


def tile_grid(size: Size, tile_px: int = TILE_PX) -> Size:
    """Rows and columns of the tiles that cover a level of ``size``."""
    return Size(-(-size.height // tile_px), -(-size.width // tile_px))


def halve(pixels: Pixels) -> Pixels:
    """The next coarser level of ``pixels``, (h, w, channels): each pixel is the mean of 2x2, halves rounded up.

    Where a side is odd, its last row or column counts twice, and the result has (h + 1) // 2 or (w + 1) // 2 pixels:
    no foreign colour is mixed in at the edge of the slide.
    """
    height, width, channels = pixels.shape
    if channels not in _EXACT_CHANNELS:
        return np.concatenate([halve(pixels[..., [channel]]) for channel in range(channels)], axis=2)
    if height % 2 or width % 2:
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    size = ((width + 1) // 2, (height + 1) // 2)
    # At exactly this factor the filter is (a + b + c + d + 2) >> 2.
    halved = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return cast(Pixels, halved.reshape(size[1], size[0], channels))
