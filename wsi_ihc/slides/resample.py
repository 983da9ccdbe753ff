"""Reduces pixels by area, by any factor; a pixel never depends on the window in which it is computed.

Pixel i of the result is the mean of the source over [i s, (i + 1) s) in both axes. Weights come from absolute
coordinates and are whole multiples of 1/4096; every sum is a whole number below 2**24, which float32 holds exactly.
So the order of summation does not matter: every window, on every machine, gives the same pixel.
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
"""Side of the square of source pixels that is resampled at a time: a few tiles of any slide, 3 MB."""
UNIT = 4096
"""Sum of the weights of an axis. 255 * 4096 leaves four of the 24 bits of float32."""
SIXTEENTHS = 16
"""Pixels between the two axes are in sixteenths of a grey level: 255 * 16 * 4096 < 2**24."""


def source_span(start: int, count: int, scale: float) -> tuple[int, int]:
    """First source pixel, and number of source pixels, for results [start, start + count) of ``scale`` pixels each."""
    first = int(np.floor(start * scale))
    return first, int(np.ceil((start + count) * scale)) - first


def weights(start: int, count: int, scale: float) -> csr_array:
    """(count, span) float32 weights of one axis, whole numbers that add up to ``UNIT`` in every row."""
    # Imported here: it takes a quarter of a second, and most slides are read without resampling.
    from scipy.sparse import csr_array

    first, span = source_span(start, count, scale)
    index = np.arange(start, start + count, dtype=np.float64)
    low, high = index * scale, (index + 1) * scale
    taps = int(np.ceil(scale)) + 1
    columns = np.floor(low).astype(np.int64)[:, None] + np.arange(taps)
    edges = np.clip(np.concatenate([columns, columns[:, -1:] + 1], axis=1), low[:, None], high[:, None])
    # The running sums are rounded, not the shares: so every row adds up to UNIT.
    covered = np.rint((edges - low[:, None]) * (UNIT / (high - low))[:, None])
    shares = np.diff(covered, axis=1).astype(np.float32)
    rows = np.repeat(np.arange(count), taps).reshape(count, taps)
    used = shares > 0
    return csr_array((shares[used], (rows[used], columns[used] - first)), shape=(count, span))


def reduced_from(read: Callable[[Region], NDArray[np.uint8]], region: Region, scale: float) -> NDArray[np.uint8]:
    """(height, width, 3) pixels of ``region``, each the mean of ``scale`` x ``scale`` pixels of the source.

    ``read`` returns the pixels of a region of the source. Memory bound: the result and about 50 MB, because the source
    is read in parts.
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
    """(height, width, 3) pixels of ``region``, each the mean of ``scale`` x ``scale`` source pixels; halves round up.

    ``pixels`` are the source pixels in exactly the ``source_span`` of the region in both axes.
    """
    if scale == 2.0:  # OpenCV's 2 x 2 mean rounds halves up too: the same values, ten times faster
        return cv2.resize(pixels, region.size[::-1], interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return reduce_exactly(pixels, region, scale)


def reduce_exactly(pixels: NDArray[np.uint8], region: Region, scale: float) -> NDArray[np.uint8]:
    """As :func:`reduce`, for any scale: one axis after the other."""
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
    values = columns.astype(np.uint8)  # truncation is floor here
    result: NDArray[np.uint8] = cv2.transpose(values.reshape(width, height, 3))
    return result
