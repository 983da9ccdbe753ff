"""Connected pieces of masks, and morphology with discs; sizes in pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.tissue.bands import bands

Mask = NDArray[np.bool_]
Judge = Callable[[NDArray[np.int32], int], NDArray[np.bool_]]
"""Which labels to keep, from the label of each pixel (0 is outside of all pieces) and the number of labels."""


def kept_pieces(mask: Mask, judge: Judge) -> Mask:
    """The 8-connected pieces of ``mask`` that ``judge`` keeps."""
    if not mask.any():  # usual for ink, and saves labels of four bytes per pixel
        return mask.copy()
    count, label = _labelled(mask, connectivity=8)
    keep = judge(label, count)
    keep[0] = False
    return _of_labels(keep, label)


def _labelled(mask: Mask, connectivity: Literal[4, 8]) -> tuple[int, NDArray[np.int32]]:
    """The number of labels, and the label of each pixel: 0 outside ``mask``, 1, 2, … for its pieces."""
    count, label = cv2.connectedComponents(mask.view(np.uint8), connectivity=connectivity)
    return count, np.asarray(label, np.int32)


def pixel_counts(label: NDArray[np.int32], count: int, where: Mask | None = None) -> NDArray[np.int64]:
    """Number of pixels of each of ``count`` labels; only those in ``where``, if it is given.

    Computed in bands of rows: NumPy would first convert the whole picture to 64-bit integers.
    """
    counts = np.zeros(count, np.int64)
    for band in bands(label.shape[0]):
        labels = label[band.rows]
        counts += np.bincount(labels.ravel() if where is None else labels[where[band.rows]], minlength=count)
    return counts


def _of_labels(values: NDArray[np.bool_], label: NDArray[np.int32]) -> Mask:
    """``values[label]``, in bands of rows as in ``pixel_counts``."""
    found = np.empty(label.shape, bool)
    for band in bands(label.shape[0]):
        found[band.rows] = values[label[band.rows]]
    return found


def hysteresis(low: Mask, high: Mask) -> Mask:
    """The pieces of ``low`` that contain a pixel of ``high``."""
    if not high.any():
        return high.copy()
    return kept_pieces(low, lambda label, count: pixel_counts(label, count, high) > 0)


def enclosed(mask: Mask) -> Mask:
    """The holes of ``mask``: pixels outside it that it separates from the edge of the picture."""
    count, label = _labelled(~mask, connectivity=4)
    open_ones = np.zeros(count, bool)
    for edge in (label[0], label[-1], label[:, 0], label[:, -1]):
        open_ones[edge] = True
    open_ones[0] = True
    return _of_labels(~open_ones, label)


def dilated(mask: Mask, radius: float) -> Mask:
    """``mask`` grown by a disc of ``radius`` pixels; unchanged below half a pixel."""
    if round(radius) < 1 or not mask.any():
        return mask
    # A distance transform takes the same time for every radius; a structuring element does not.
    distance = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    return np.asarray(distance <= round(radius))


def closed(mask: Mask, radius: float) -> Mask:
    """``mask`` closed by a disc of ``radius`` pixels; tissue at the edge of the picture continues beyond it."""
    if round(radius) < 1:
        return mask
    pad = round(radius) + 1
    grown = dilated(np.pad(mask, pad, mode="edge"), radius)
    shrunk = ~dilated(~grown, radius)
    return np.ascontiguousarray(shrunk[pad:-pad, pad:-pad]) | mask
