"""Masks to polygons and back, without loss: the same mask comes out again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.tissue.shapes import Mask

Ring = NDArray[np.float64]
"""(n, 2) corners x, y; the last is joined to the first."""

MOST_CROSSINGS = 100_000_000
"""Most crossings between the sides of a ring and the rows of the mask: they take some seconds."""
PART = 2_000_000
"""Crossings that are in memory at a time, some 100 MB."""


class TooComplexError(ValueError):
    """A polygon that would take minutes to fill. The text is only the reason; the caller names the file."""


def outlines(mask: Mask) -> Iterator[list[Ring]]:
    """For each 4-connected piece of ``mask``, top to bottom: its outline, then the outlines of its holes.

    Rings run through the middles of the sides between tissue and glass. The unit is a mask pixel, and zero is the top
    left corner of the first. Rings never touch themselves or each other, even where pixels meet at a corner, and
    contain the centres of exactly the pixels of ``mask``.
    """
    from skimage.measure import find_contours  # takes a second to import, and only this function needs it

    count, label = cv2.connectedComponents(mask.view(np.uint8), connectivity=4)
    padded = np.pad(mask, 1).astype(np.float64)
    pieces: list[list[Ring]] = [[] for _ in range(count)]
    for contour in find_contours(padded, 0.5, fully_connected="low"):  # type: ignore[no-untyped-call]
        first = contour[0]
        corners = np.floor(first).astype(int) - 1, np.ceil(first).astype(int) - 1
        row, column = next((r, c) for r, c in corners if _inside(mask, r, c))
        pieces[label[row, column]].append(_corners(contour[:-1, ::-1] - 0.5))
    for rings in pieces[1:]:
        yield sorted(rings, key=lambda ring: -abs(signed_area(ring)))


def fill(mask: Mask, polygons: Sequence[Sequence[Ring]], value: bool) -> None:
    """Sets the pixels of ``mask`` whose centres lie in any of ``polygons``; each is an outline and its holes.

    Raises:
        TooComplexError: a ring crosses the rows of the mask more than ``MOST_CROSSINGS`` times.
    """
    for rings in polygons:
        points = np.concatenate(rings)
        low = np.clip(np.floor(points.min(axis=0)).astype(int), 0, (mask.shape[1], mask.shape[0]))
        high = np.clip(np.ceil(points.max(axis=0)).astype(int), 0, (mask.shape[1], mask.shape[0]))
        if (high > low).all():
            window = mask[low[1] : high[1], low[0] : high[0]]
            window[_parity([ring - low for ring in rings], window.shape)] = value


def signed_area(ring: Ring) -> float:
    """Area by the shoelace formula; the sign is the direction of rotation."""
    x, y = ring[:, 0], ring[:, 1]
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _inside(mask: Mask, row: int, column: int) -> bool:
    return 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1] and bool(mask[row, column])


def _corners(ring: Ring) -> Ring:
    """``ring`` without the points that lie on straight lines."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    return np.asarray(ring[turns])


def _parity(rings: Sequence[Ring], shape: tuple[int, ...]) -> Mask:
    """(height, width) mask of ``shape``: pixels whose centres the rings go around an odd number of times.

    In every row whose centre line a side of a ring crosses, it toggles all pixels to the right of the crossing.

    Raises:
        TooComplexError: more than ``MOST_CROSSINGS`` crossings.
    """
    toggles = np.zeros((shape[0], shape[1] + 1), np.uint8)
    for ring in rings:
        start, stop = ring, np.roll(ring, -1, axis=0)
        upper = np.where((start[:, 1] <= stop[:, 1])[:, None], start, stop)
        lower = np.where((start[:, 1] <= stop[:, 1])[:, None], stop, start)
        first = np.clip(np.ceil(upper[:, 1] - 0.5), 0, shape[0]).astype(int)
        last = np.clip(np.ceil(lower[:, 1] - 0.5), 0, shape[0]).astype(int)
        crossings = last - first
        ends = np.cumsum(crossings)
        if len(ends) and ends[-1] > MOST_CROSSINGS:
            raise TooComplexError(f"an outline of {len(ring)} corners crosses the picture {ends[-1]} times")
        parts = np.searchsorted(ends, np.arange(PART, ends[-1] + PART, PART)) + 1 if len(ends) else ()
        begin = 0
        for end in map(int, parts):
            sides = slice(begin, min(end, len(ring)))
            _toggle(toggles, upper[sides], lower[sides], first[sides], crossings[sides])
            begin = sides.stop
    return np.asarray(np.bitwise_xor.accumulate(toggles[:, :-1] & 1, axis=1), dtype=bool)


def _toggle(
    toggles: NDArray[np.uint8], upper: Ring, lower: Ring, first: NDArray[np.int64], crossings: NDArray[np.int64]
) -> None:
    """Toggles the pixel to the right of each crossing of a side with the centre line of a row, in place."""
    side = np.repeat(np.arange(len(upper)), crossings)
    row = np.arange(len(side)) - np.repeat(np.cumsum(crossings) - crossings, crossings) + first[side]
    slope = (lower[side, 0] - upper[side, 0]) / (lower[side, 1] - upper[side, 1])
    place = upper[side, 0] + (row + 0.5 - upper[side, 1]) * slope
    column = np.clip(np.ceil(place - 0.5), 0, toggles.shape[1] - 1).astype(int)
    np.add.at(toggles, (row, column), 1)
