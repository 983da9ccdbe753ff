"""The levels of a slide: the downsample of each, and which sizes can be levels of one slide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wsi_ihc.errors import UnsupportedSlideError
from wsi_ihc.pyramid.geometry import Size

LARGEST_SIDE = 2_000_000
"""Most pixels along one side: a glass of 75 mm at 0.05 um/px has 1.5 million."""

MOST_PADDING = 0.15
"""Largest share of a level's side that can be padding: the filled-up last tile is much of a small level."""


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of a slide."""

    size: Size
    downsample: float
    """Level 0 pixels per pixel of this level; exactly 1.0 for level 0."""
    stated_mpp: float | None = field(default=None, compare=False)
    """um/px in x that the file states for this level; the size of the level may contradict it."""


def pyramid(sizes: Sequence[Size], stated_mpp: Sequence[float | None] = ()) -> tuple[Level, ...]:
    """Levels from their sizes, finest first, and from the um/px in x that the file states for each.

    The downsample is the mean of both axes. Where a level has the size of level 0 divided by a power of two and
    rounded, the downsample is exactly that power: rounding is no change of scale.
    """
    stated = [*stated_mpp, *([None] * (len(sizes) - len(stated_mpp)))]
    return tuple(Level(size, _downsample(sizes[0], size), mpp) for size, mpp in zip(sizes, stated, strict=True))


def stated_downsample(base: Level, level: Level) -> float | None:
    """The downsample of ``level`` by the stated pixel sizes, where it differs from that by the size and can be true.

    None where both agree within two pixels, and where they differ by more than padding can explain.
    """
    if not (base.stated_mpp and level.stated_mpp):
        return None
    stated = level.stated_mpp / base.stated_mpp
    difference = abs(stated / level.downsample - 1)
    return stated if difference <= MOST_PADDING and difference * max(level.size) > 2 else None


def cropped(base: Size, size: Size, downsample: float) -> Size:
    """Size of the part of a level that shows the slide and not padding."""
    return Size(
        min(size.height, max(1, round(base.height / downsample))),
        min(size.width, max(1, round(base.width / downsample))),
    )


def possible_downsamples(base: Size, level: Level) -> list[float]:
    """Other downsamples that a padded or cropped ``level`` may have: that of one axis, a whole number, a power of two.

    Candidates that would move the last pixel of the level by less than a pixel are left out.
    """
    by_axis = [base.height / level.size.height, base.width / level.size.width]
    mean = sum(by_axis) / 2
    found: list[float] = []
    for other in (mean, *by_axis, float(round(mean)), 2.0 ** round(np.log2(mean))):
        near = [abs(other / one - 1) * max(level.size) < 1 for one in (level.downsample, *found)]
        if other >= 1 and abs(other / mean - 1) <= MOST_PADDING and not any(near):
            found.append(other)
    return found


def _downsample(base: Size, size: Size) -> float:
    mean = (base.height / size.height + base.width / size.width) / 2
    power = 2.0 ** round(np.log2(mean))
    # Rounding changes a side by half a pixel, or by a whole one where a scanner halves and crops repeatedly.
    exact = abs(base.height / power - size.height) < 1 and abs(base.width / power - size.width) < 1
    return power if exact else mean


def shows_same_field(size: Size, base: Size) -> bool:
    """Whether an image of ``size`` can be a reduced ``base``: the same shape, within 1.5 pixels and half a percent."""
    expected = base.height * size.width / base.width
    return abs(expected - size.height) <= 1.5 + 0.005 * expected


def check_plane(path: Path, size: Size) -> None:
    """Refuses a size that no scanner produces, before memory is reserved for it.

    Raises:
        UnsupportedSlideError: a side has more than ``LARGEST_SIDE`` pixels, or none.
    """
    if not all(0 < side <= LARGEST_SIDE for side in size):
        raise UnsupportedSlideError(
            f"{path}: an image of {size.width} x {size.height} px is no slide; the file is damaged"
        )
