"""The tissue of a working plane, and how softly it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.pyramid.geometry import Region, Size

_REACH = 3
"""Mask pixels beyond the tissue that its softened edge reaches, and one more for the interpolation."""


@dataclass(frozen=True, eq=False)
class TissueMask:
    """Tissue, its margin included, on a grid coarser than the working plane.

    Mask pixel (i, j) covers working pixels ``[i * downsample, (i + 1) * downsample)`` and likewise in width.
    Beyond the last mask pixel the last one counts: a slide's edge does not fade.
    """

    pixels: NDArray[np.bool_]
    """(rows, columns), True where there is tissue."""
    downsample: float
    """Working pixels per mask pixel."""
    size: Size
    """Of the working plane."""
    notices: tuple[str, ...] = ()
    """What a user should know about how it was found."""

    def fraction(self, region: Region) -> float:
        """Share of ``region``'s area, in working pixels, that is tissue of this plane; 0 to 1.

        A mask pixel counts by the part of it that lies in the region.
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

        1 on tissue and on the mask pixel around it, then falling smoothly to 0 over two more (16 um at the default
        resolution of the mask). A working pixel's value depends on its place in the plane alone: it is the same, bit
        for bit, in every region that holds it.
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
        # A tap of weight 0 is not seen: at the first and last pixel that decides.
        return bool(soft[np.ix_(rows.seen(), columns.seen())].any())

    def __reduce__(self) -> tuple[Any, ...]:
        """To other processes a pixel travels as a bit: schedulers keep what they pass on."""
        return _unpacked, (np.packbits(self.pixels), self.pixels.shape, self.downsample, self.size)

    def _taps_under(self, region: Region) -> tuple[_Taps, _Taps]:
        rows = _taps(region.top, region.height, self.downsample, self.pixels.shape[0])
        return rows, _taps(region.left, region.width, self.downsample, self.pixels.shape[1])

    def _softened(self, rows: _Taps, columns: _Taps) -> NDArray[np.float32]:
        """Opacity at the centres of the mask pixels that the taps span: a dilation by one, then a binomial blur.

        Its values are sixteenths, exact in float32, and come from ``_REACH`` neighbours: cropping changes nothing.
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
    """Mask pixel that index 0 stands for."""
    length: int
    """Mask pixels from the first to the last in use."""
    index: NDArray[np.intp]
    weight: NDArray[np.float32]

    def seen(self) -> NDArray[np.intp]:
        """Indices whose weight is not 0 for some working pixel."""
        here, following = self.index[self.weight < 1], self.index[self.weight > 0] + 1
        return np.unique(np.concatenate([here, following]))


def _taps(start: int, count: int, downsample: float, size: int) -> _Taps:
    """Taps of working pixels ``[start, start + count)``, from float64 of absolute places: none depends on ``start``."""
    place = (np.arange(start, start + count, dtype=np.float64) + 0.5) / downsample - 0.5
    place = np.clip(place, 0, size - 1)
    index = np.floor(place).astype(np.intp)
    weight = (place - index).astype(np.float32)
    first = int(index[0])
    return _Taps(first, int(index[-1]) - first + 2, index - first, weight)


def _interpolated(values: NDArray[np.float32], taps: _Taps, axis: int) -> NDArray[np.float32]:
    """Linear between ``values`` along ``axis``. ``a + (b - a) * w`` gives exactly ``a`` where both are equal."""
    steps = np.diff(values, axis=axis)
    weight = taps.weight if axis == 1 else taps.weight[:, None]
    result = np.take(steps, taps.index, axis=axis)
    result *= weight
    result += np.take(values, taps.index, axis=axis)
    return result


def _overlaps(start: int, stop: int, downsample: float, size: int) -> tuple[int, NDArray[np.float64]]:
    """First mask pixel under working pixels ``[start, stop)``, and how many of them lie on it and each next one."""
    if stop <= start:
        return 0, np.zeros(0)
    first = min(size - 1, int(start / downsample))
    last = min(size - 1, int(np.ceil(stop / downsample)) - 1)
    edges = np.arange(first, last + 2) * downsample
    edges[-1] = max(edges[-1], stop) if last == size - 1 else edges[-1]
    return first, np.clip(edges[1:], start, stop) - np.clip(edges[:-1], start, stop)
