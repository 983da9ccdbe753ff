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
    return mask if round(radius) < 1 else cv2.dilate(mask.view(np.uint8), _disc(radius)).view(np.bool_)


def closed(mask: Mask, radius: float) -> Mask:
    """``mask`` with gaps up to a disc closed; tissue that is cut by the picture's edge goes on beyond it."""
    if round(radius) < 1:
        return mask
    pad = round(radius) + 1
    wider = cv2.copyMakeBorder(mask.view(np.uint8), pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    joined = cv2.morphologyEx(wider, cv2.MORPH_CLOSE, _disc(radius))
    return np.ascontiguousarray(joined[pad:-pad, pad:-pad]).view(np.bool_)


def _disc(radius: float) -> NDArray[np.uint8]:
    side = 2 * round(radius) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
