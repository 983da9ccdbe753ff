"""Pictures of the mask: by itself, and as an outline on the slide."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.tissue.mask import TissueMask

OUTLINE = (0, 160, 0)
"""RGB of the outline: green stands out on pink, violet and brown."""


def mask_picture(mask: TissueMask) -> NDArray[np.uint8]:
    """(rows, columns) uint8: 255 on tissue, 0 on glass, at the resolution of the mask."""
    return mask.pixels.astype(np.uint8) * np.uint8(255)


def overlay_picture(mask: TissueMask, thumbnail: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(height, width, 3) RGB: the outline of the tissue on ``thumbnail``, which shows the whole slide."""
    height, width = thumbnail.shape[:2]
    pixels = cv2.resize(mask.pixels.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    line_px = max(1, round(max(height, width) / 800))
    return np.asarray(cv2.drawContours(thumbnail.copy(), contours, -1, OUTLINE, line_px), np.uint8)


def png(picture: NDArray[np.uint8]) -> bytes:
    """``picture``, (height, width) grey or (height, width, 3) RGB uint8, as the bytes of a PNG file."""
    encoded = cv2.imencode(".png", picture if picture.ndim == 2 else picture[..., ::-1])[1]
    return encoded.tobytes()
