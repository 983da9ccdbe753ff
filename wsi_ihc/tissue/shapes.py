"""Connected pieces and discs on masks; sizes in pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.tissue.bands import bands

Mask = NDArray[np.bool_]
Judge = Callable[[NDArray[np.int32], int], NDArray[np.bool_]]
"""From the pieces' labels (0 is what lies outside of all) and how many labels there are: which to keep."""


def kept_pieces(mask: Mask, judge: Judge) -> Mask:
    """The 8-connected pieces of ``mask`` that ``judge`` keeps."""
    if not mask.any():  # mostly so for ink; labels take four bytes a pixel
        return mask.copy()
    count, label = _labelled(mask, connectivity=8)
    keep = judge(label, count)
    keep[0] = False
    return _of_labels(keep, label)


def _labelled(mask: Mask, connectivity: Literal[4, 8]) -> tuple[int, NDArray[np.int32]]:
    """How many labels there are, and the label of each pixel: 0 outside ``mask``, then 1, 2, … for its pieces."""
    count, label = cv2.connectedComponents(mask.view(np.uint8), connectivity=connectivity)
    return count, np.asarray(label, np.int32)


def pixel_counts(label: NDArray[np.int32], count: int, where: Mask | None = None) -> NDArray[np.int64]:
    """Pixels of each of ``count`` labels, all of them or those of ``where``.

    In bands of rows: NumPy would first make 64-bit integers of the whole picture.
    """
    counts = np.zeros(count, np.int64)
    for band in bands(label.shape[0]):
        labels = label[band.rows]
        counts += np.bincount(labels.ravel() if where is None else labels[where[band.rows]], minlength=count)
    return counts


def _of_labels(values: NDArray[np.bool_], label: NDArray[np.int32]) -> Mask:
    """``values[label]``, in bands of rows for the same reason."""
    found = np.empty(label.shape, bool)
    for band in bands(label.shape[0]):
        found[band.rows] = values[label[band.rows]]
    return found


def hysteresis(low: Mask, high: Mask) -> Mask:
    """The pieces of ``low`` that hold a pixel of ``high``."""
    if not high.any():
        return high.copy()
    return kept_pieces(low, lambda label, count: pixel_counts(label, count, high) > 0)


def enclosed(mask: Mask) -> Mask:
    """Pixels outside ``mask`` that are cut off by it from the edge of the picture."""
    count, label = _labelled(~mask, connectivity=4)
    open_ones = np.zeros(count, bool)
    for edge in (label[0], label[-1], label[:, 0], label[:, -1]):
        open_ones[edge] = True
    open_ones[0] = True
    return _of_labels(~open_ones, label)


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
