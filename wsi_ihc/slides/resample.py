"""Reducing pixels by area, by any factor, so that a value never depends on the window it was made in.

Pixel i of the result is the mean of the source over [i s, (i + 1) s) in both axes. Weights come from absolute
coordinates and are whole multiples of 1/4096; every sum is a whole number below 2**24, which float32 holds exactly.
So the order of summing cannot matter, and the same pixel comes out of every window, on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.pyramid.geometry import Region

if TYPE_CHECKING:
    from scipy.sparse import csr_array

SOURCE_PX = 1024
"""Side of the source pixels that are resampled at a time: a few tiles of any slide, and 3 MB."""
UNIT = 4096
"""Weights of an axis add up to this. 255 * 4096 leaves four bits in float32's 24 ..."""
SIXTEENTHS = 16
"""... and so between the axes pixels are kept in sixteenths of a grey level: 255 * 16 * 4096 < 2**24."""


def source_span(start: int, count: int, scale: float) -> tuple[int, int]:
    """First source pixel and how many are needed for results [start, start + count), ``scale`` source pixels each."""
    first = int(np.floor(start * scale))
    return first, int(np.ceil((start + count) * scale)) - first


def weights(start: int, count: int, scale: float) -> csr_array:
    """(count, span) float32 weights of one axis, whole numbers that add up to ``UNIT`` in every row."""
    # Imported here: it takes a quarter of a second, and most slides are read at a level as it is.
    from scipy.sparse import csr_array

    first, span = source_span(start, count, scale)
    index = np.arange(start, start + count, dtype=np.float64)
    low, high = index * scale, (index + 1) * scale
    taps = int(np.ceil(scale)) + 1
    columns = np.floor(low).astype(np.int64)[:, None] + np.arange(taps)
    edges = np.clip(np.concatenate([columns, columns[:, -1:] + 1], axis=1), low[:, None], high[:, None])
    # Rounding what has been covered so far, not each share, makes every row add up.
    covered = np.rint((edges - low[:, None]) * (UNIT / (high - low))[:, None])
    shares = np.diff(covered, axis=1).astype(np.float32)
    rows = np.repeat(np.arange(count), taps).reshape(count, taps)
    used = shares > 0
    return csr_array((shares[used], (rows[used], columns[used] - first)), shape=(count, span))


def reduced_from(read: Callable[[Region], NDArray[np.uint8]], region: Region, scale: float) -> NDArray[np.uint8]:
    """The (height, width, 3) results of ``region``, ``scale`` source pixels each, of what ``read`` gives.

    Memory bound: the result, and about 50 MB in the making: the source is read in parts.
    """
    pixels = np.empty((*region.size, 3), np.uint8)
    for part in _parts(region, max(1, int(SOURCE_PX / scale))):
        top, height = source_span(part.top, part.height, scale)
        left, width = source_span(part.left, part.width, scale)
        pixels[part.relative_to(region).slices] = reduce(read(Region(top, left, height, width)), part, scale)
    return pixels


def _parts(region: Region, side: int) -> Iterator[Region]:
    """The region cut into squares of at most ``side``."""
    for top in range(region.top, region.bottom, side):
        for left in range(region.left, region.right, side):
            yield Region(top, left, min(side, region.bottom - top), min(side, region.right - left))


def reduce(pixels: NDArray[np.uint8], region: Region, scale: float) -> NDArray[np.uint8]:
    """The (height, width, 3) results of ``region``, ``scale`` source pixels each; halves round up.

    ``pixels`` are the source pixels of exactly the region's ``source_span`` in both axes.
    """
    if scale == 2.0:  # OpenCV's 2 x 2 mean rounds halves up too: the same values, ten times faster
        return cv2.resize(pixels, region.size[::-1], interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return reduce_exactly(pixels, region, scale)


def reduce_exactly(pixels: NDArray[np.uint8], region: Region, scale: float) -> NDArray[np.uint8]:
    """:func:`reduce` for any scale, one axis after the other."""
    height, width = region.size
    down, across = weights(region.top, height, scale), weights(region.left, width, scale)
    span = pixels.shape[1]
    rows = down @ pixels.reshape(-1, span * 3).astype(np.float32)  # (height, span * 3)
    rows *= SIXTEENTHS / UNIT
    rows += 0.5
    np.floor(rows, out=rows)
    turned = cv2.transpose(rows.reshape(height, span, 3))
    columns = across @ turned.reshape(span, height * 3)  # (width, height * 3)
    columns *= 1 / (SIXTEENTHS * UNIT)
    columns += 0.5
    values = columns.astype(np.uint8)  # cutting off is floor
    result: NDArray[np.uint8] = cv2.transpose(values.reshape(width, height, 3))
    return result
