"""Recognises outlines that were drawn on a smaller export of the slide, on another image, or written in micrometres."""

from __future__ import annotations

import cv2
import numpy as np

from wsi_ihc.tissue.shapes import Mask

MOSTLY = 0.5
"""Least share of tissue inside the outlines; outlines drawn by hand have 0.7 and more."""
FITS = 0.6
"""Least share of tissue inside enlarged outlines that fit."""
SMALLER = (2.0, 4.0, 8.0, 16.0, 32.0)
"""Factors by which exports that people draw on are smaller."""


def scale_doubt(drawn: Mask, tissue: Mask, mpp: float | None) -> str | None:
    """A reason to doubt outlines that enclose ``drawn``; None where there is none.

    Both masks show the whole slide, at any two resolutions. ``mpp`` is um/px of level 0: outlines in um are too small
    by this factor.
    """
    found = cv2.resize(tissue.view(np.uint8), drawn.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    share = _share(drawn, found)
    factors = {factor: f"an export {factor:g} times smaller" for factor in SMALLER}
    if mpp and mpp < 0.9:
        near = next((factor for factor in factors if abs(factor * mpp - 1) < 0.05), None)
        factors[near or 1 / mpp] = f"{factors[near]}, or are they in um" if near else "an image with coordinates in um"
    fits = {factor: _share(_enlarged(drawn, factor), found) for factor in factors if _has_room(drawn, factor)}
    best = max(fits, key=lambda factor: fits[factor], default=1.0)
    if fits.get(best, 0.0) >= max(FITS, share + 0.1):
        return (
            f"{share:.0%} of what the outlines enclose is tissue, and {fits[best]:.0%} if they were {best:.3g} times "
            f"as large; were they drawn on {factors[best]}?"
        )
    if share < MOSTLY:
        return f"only {share:.0%} of what the outlines enclose is tissue; were they drawn on another image?"
    return None


def _share(drawn: Mask, tissue: Mask) -> float:
    return int(np.count_nonzero(drawn & tissue)) / max(1, int(np.count_nonzero(drawn)))


def _has_room(drawn: Mask, factor: float) -> bool:
    """Whether the outlines, enlarged from the top left corner, still lie inside the slide."""
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    height, width = drawn.shape
    return bool((rows[-1] + 1) * factor <= 1.01 * height and (columns[-1] + 1) * factor <= 1.01 * width)


def _enlarged(drawn: Mask, factor: float) -> Mask:
    matrix = np.array([[factor, 0, 0], [0, factor, 0]], np.float64)
    larger = cv2.warpAffine(drawn.view(np.uint8), matrix, drawn.shape[::-1], flags=cv2.INTER_NEAREST)
    return np.asarray(larger > 0)
