"""The tissue mask of a working plane, with soft edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.pyramid.geometry import Region, Size

_REACH = 3
"""Mask pixels by which the soft edge reaches beyond the tissue, and one more for the interpolation."""


@dataclass(frozen=True, eq=False)
class TissueMask:
    """Tissue with its margin, on a coarser grid than the working plane.

    Mask pixel (i, j) covers working pixels ``[i * downsample, (i + 1) * downsample)``, and likewise in width. The
    first and last mask pixels extend beyond the plane: tissue at the edge of a slide does not fade.
    """

    pixels: NDArray[np.bool_]
    """(rows, columns), True where there is tissue."""
    downsample: float
    """Working pixels per mask pixel."""
    size: Size
    """Size of the working plane, pixels."""
    notices: tuple[str, ...] = ()
    """Lines for the user about the outlines."""

    def fraction(self, region: Region) -> float:
        """Share of the area of ``region`` (working pixels) that is tissue of this plane, 0 to 1.

        A mask pixel counts with the part that lies in the region.
        """
        if region.area == 0:
            return 0.0
        inside = region.intersection(Region(0, 0, *self.size))
        row, heights = _overlaps(inside.top, inside.bottom, self.downsample, self.pixels.shape[0])
        column, widths = _overlaps(inside.left, inside.right, self.downsample, self.pixels.shape[1])
        crop = self.pixels[row : row + len(heights), column : column + len(widths)]
        return min(1.0, float(heights @ crop @ widths) / region.area)

    def coverage(self, region: Region) -> NDArray[np.float32] | None:
        """(height, width) float32 opacity of the stained pixels over white, or None where it is 1 everywhere.

        It is 1 on tissue and one mask pixel around it, and falls smoothly to 0 over two more (16 um at the default
        resolution of the mask). The value of a working pixel depends only on its place in the plane: it is the same,
        bit for bit, in every region that contains it.
        """
        if region.area == 0:
            return np.zeros(region.size, np.float32)
        rows, columns = self._taps_under(region)
        soft = self._softened(rows, columns)
        if soft.min() == 1:
            return None
        alpha = _interpolated(_interpolated(soft, columns, axis=1), rows, axis=0)
        return None if alpha.min() == 1 else alpha

    def any(self, region: Region) -> bool:
        """Whether :meth:`coverage` is above 0 anywhere in ``region``."""
        if region.area == 0:
            return False
        rows, columns = self._taps_under(region)
        soft = self._softened(rows, columns)
        if soft.all():
            return True
        # A tap of weight 0 does not count: this matters at the first and the last pixel.
        return bool(soft[np.ix_(rows.seen(), columns.seen())].any())

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles a pixel as one bit: schedulers keep the messages that they pass on."""
        return _unpacked, (np.packbits(self.pixels), self.pixels.shape, self.downsample, self.size)

    def _taps_under(self, region: Region) -> tuple[_Taps, _Taps]:
        rows = _taps(region.top, region.height, self.downsample, self.pixels.shape[0])
        return rows, _taps(region.left, region.width, self.downsample, self.pixels.shape[1])

    def _softened(self, rows: _Taps, columns: _Taps) -> NDArray[np.float32]:
        """Opacity at the centres of the mask pixels that the taps span: a dilation by two pixels, then a binomial blur.

        Its values are sixteenths, exact in float32, and depend on ``_REACH`` neighbours: cropping changes nothing.
        """
        crop = self._padded_crop(rows, columns)
        if crop.all():
            return np.ones((rows.length, columns.length), np.float32)
        wider = cv2.dilate(crop, np.ones((5, 5), np.uint8))
        soft = wider.astype(np.float32)
        soft = soft[:-2] + 2 * soft[1:-1] + soft[2:]
        soft = soft[:, :-2] + 2 * soft[:, 1:-1] + soft[:, 2:]
        trim = _REACH - 1
        return np.ascontiguousarray(soft[trim:-trim, trim:-trim]) / np.float32(16)

    def _padded_crop(self, rows: _Taps, columns: _Taps) -> NDArray[np.uint8]:
        above, left = np.arange(-_REACH, rows.length + _REACH), np.arange(-_REACH, columns.length + _REACH)
        rows_px = np.clip(above + rows.first, 0, self.pixels.shape[0] - 1)
        columns_px = np.clip(left + columns.first, 0, self.pixels.shape[1] - 1)
        return self.pixels[rows_px[:, None], columns_px].astype(np.uint8)


def _unpacked(bits: NDArray[np.uint8], shape: tuple[int, int], downsample: float, size: Size) -> TissueMask:
    pixels = np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape).view(bool)
    return TissueMask(pixels, downsample, size)


@dataclass(frozen=True, slots=True)
class _Taps:
    """For each working pixel of a line: the mask pixel at or before its centre, and the weight of the next one."""

    first: int
    """Number of the mask pixel at index 0."""
    length: int
    """Number of mask pixels from the first to the last one used."""
    index: NDArray[np.intp]
    weight: NDArray[np.float32]

    def seen(self) -> NDArray[np.intp]:
        """Indices whose weight is not 0 for some working pixel."""
        here, following = self.index[self.weight < 1], self.index[self.weight > 0] + 1
        return np.unique(np.concatenate([here, following]))


def _taps(start: int, count: int, downsample: float, size: int) -> _Taps:
    """Taps of working pixels ``[start, start + count)``, from absolute positions: they do not depend on ``start``."""
    place = (np.arange(start, start + count, dtype=np.float64) + 0.5) / downsample - 0.5
    place = np.clip(place, 0, size - 1)
    index = np.floor(place).astype(np.intp)
    weight = (place - index).astype(np.float32)
    first = int(index[0])
    return _Taps(first, int(index[-1]) - first + 2, index - first, weight)


def _interpolated(values: NDArray[np.float32], taps: _Taps, axis: int) -> NDArray[np.float32]:
    """Linear interpolation along ``axis``. ``a + (b - a) * w`` is exactly ``a`` where both values are equal."""
    steps = np.diff(values, axis=axis)
    weight = taps.weight if axis == 1 else taps.weight[:, None]
    result = np.take(steps, taps.index, axis=axis)
    result *= weight
    result += np.take(values, taps.index, axis=axis)
    return result


def _overlaps(start: int, stop: int, downsample: float, size: int) -> tuple[int, NDArray[np.float64]]:
    """First mask pixel under working pixels ``[start, stop)``, and how many of them lie on it and on each next one."""
    if stop <= start:
        return 0, np.zeros(0)
    first = min(size - 1, int(start / downsample))
    last = min(size - 1, int(np.ceil(stop / downsample)) - 1)
    edges = np.arange(first, last + 2) * downsample
    edges[-1] = max(edges[-1], stop) if last == size - 1 else edges[-1]
    return first, np.clip(edges[1:], start, stop) - np.clip(edges[:-1], start, stop)
