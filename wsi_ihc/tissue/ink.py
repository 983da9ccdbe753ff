"""Marker ink, printed crosses and black borders: densities that no tissue stain has."""

from __future__ import annotations

from enum import IntFlag

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.tissue.shapes import Mask, dilated, hysteresis, kept_pieces, pixel_counts

MIN_STROKE_UM = 100.0
"""A stroke has at least the area of a square of this side; smaller pieces are pigment or dark folds."""
TEXTURE = 0.06
"""Least texture of cells under ink: root mean square of density at scales below a nest of cells. Green ink has a
median of 0.03 on glass and 0.07 over glands."""
CELL_UM = 16.0
CELLS_UM = 24.0
"""Scale of the texture, and of the neighbourhood in which it is measured."""
OPAQUE = 1.5
"""Mean optical density above which the values of a scanner are noise."""


class Sign(IntFlag):
    """Evidence of ink and of tissue in a pixel: bits of one byte, because the picture of a whole slide is large.

    Strokes fade into the colours of pale nuclei and eosin. So blue and red ink have a strict sign (BLUE, RED), and a
    weak one (BLUISH, REDDISH) that counts only where it is connected to a strict one.
    """

    CERTAIN = 1
    """Ink of another colour, or black."""
    BLUISH = 2
    BLUE = 4
    REDDISH = 8
    RED = 16
    COLOURED = 32
    """Possibly tissue, unless it is ink."""
    STRONG = 64
    """Certainly tissue, unless it is ink."""


def ink_signs(red: NDArray[np.float32], green: NDArray[np.float32], blue: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Signs of ink and black from optical densities: a sum of ``Sign`` for each pixel, (height, width).

    Haematoxylin absorbs green about as much as red (0.65 : 0.70), eosin and DAB absorb green far more. None of the
    three absorbs red only a sixth as much as green while it absorbs most of blue, and none is neutral when dark.
    """
    darkest, palest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    navy_ink = (red > 1.3) & (red > 1.02 * green) & (blue < 0.75 * red)
    green_ink = (red - green > 0.15) & (blue >= 0.9 * green) & (red > blue)
    black = (palest > 1.0) & (darkest - palest < 0.35 * darkest)
    bluish = (red - green > 0.06) & (green < 0.65 * red)
    reddish = (green > 0.8) & (blue > 0.6 * green) & (red < 0.2 * green)
    signs = {
        Sign.CERTAIN: navy_ink | green_ink | black,
        Sign.BLUISH: bluish,
        Sign.BLUE: bluish & (red - green > 0.2),
        Sign.REDDISH: reddish,
        Sign.RED: reddish & (green > 1.1) & (blue > 0.65 * green) & (red < 0.18 * green),
    }
    bits = np.zeros(red.shape, np.uint8)
    for sign, where in signs.items():
        bits |= where * np.uint8(sign)
    return bits


def find_ink(signs: NDArray[np.uint8], mpp: float) -> Mask:
    """Pixels of ink and black, in strokes of at least ``MIN_STROKE_UM`` squared."""
    ink = signs & Sign.CERTAIN > 0
    ink |= hysteresis(signs & Sign.BLUISH > 0, signs & Sign.BLUE > 0)
    ink |= hysteresis(signs & Sign.REDDISH > 0, signs & Sign.RED > 0)
    return kept_pieces(ink, lambda label, count: pixel_counts(label, count) >= (MIN_STROKE_UM / mpp) ** 2)


def under_ink(ink: Mask, density: NDArray[np.float32], mpp: float) -> Mask:
    """Where ``ink`` has the fine texture of cells below it; the result is grown to the edge of the stroke.

    The edge is a step of density, which would count as texture. So only the inside of a stroke is measured, and
    compared only with itself. Fully black ink shows no texture.
    """
    edge = max(1.0, CELL_UM / mpp)
    inside = (~dilated(~ink, edge)).astype(np.float32)
    visible = np.minimum(density, np.float32(OPAQUE))
    fine = inside * (visible - _local_mean(visible, inside, max(1.0, CELL_UM / mpp)))
    power = _local_mean(fine * fine, inside, max(1.0, CELLS_UM / mpp))
    return dilated((inside > 0) & (power > TEXTURE**2), edge)


def _local_mean(values: NDArray[np.floating], where: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Gaussian mean of ``values`` over the pixels where ``where`` is 1."""
    total = cv2.GaussianBlur(values * where, (0, 0), sigma)
    return np.asarray(total / np.maximum(cv2.GaussianBlur(where, (0, 0), sigma), 1e-6), np.float32)
