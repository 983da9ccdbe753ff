"""Connected pieces and discs on masks; sizes in pixels."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Judge = Callable[[NDArray[np.int32], int], NDArray[np.bool_]]
"""From the pieces' labels (0 is what lies outside of all) and how many labels there are: which to keep."""


def kept_pieces(mask: Mask, judge: Judge) -> Mask:
    """The 8-connected pieces of ``mask`` that ``judge`` keeps."""
    count, label = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    keep = judge(np.asarray(label, np.int32), count)
    keep[0] = False
    return np.asarray(keep[label])


def hysteresis(low: Mask, high: Mask) -> Mask:
    """The pieces of ``low`` that hold a pixel of ``high``."""
    return kept_pieces(low, lambda label, count: np.bincount(label[high], minlength=count) > 0)


def enclosed(mask: Mask) -> Mask:
    """Pixels outside ``mask`` that are cut off by it from the edge of the picture."""
    count, label = cv2.connectedComponents((~mask).view(np.uint8), connectivity=4)
    open_ones = np.zeros(count, bool)
    for edge in (label[0], label[-1], label[:, 0], label[:, -1]):
        open_ones[edge] = True
    open_ones[0] = True
    return np.asarray(~open_ones[label])


def dilated(mask: Mask, radius: float) -> Mask:
    """``mask`` grown by a disc; by nothing when ``radius`` is under half a pixel."""
    if round(radius) < 1 or not mask.any():
        return mask
    # Distances instead of a structuring element: as fast for a disc of a hundred pixels as for one of two.
    distance = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    return np.asarray(distance <= round(radius))


def closed(mask: Mask, radius: float) -> Mask:
    """``mask`` with gaps up to a disc closed; tissue that is cut by the picture's edge goes on beyond it."""
    if round(radius) < 1:
        return mask
    pad = round(radius) + 1
    grown = dilated(np.pad(mask, pad, mode="edge"), radius)
    shrunk = ~dilated(~grown, radius)
    return np.ascontiguousarray(shrunk[pad:-pad, pad:-pad]) | mask
