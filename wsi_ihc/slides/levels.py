"""The levels of a slide: how much coarser each is than the finest, and which sizes can be levels of one slide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wsi_ihc.errors import UnsupportedSlideError
from wsi_ihc.pyramid.geometry import Size

LARGEST_SIDE = 2_000_000
"""Pixels. A glass of 75 mm at 0.05 um/px has 1.5 million."""


MOST_PADDING = 0.15
"""Share of a level's side. Scanners fill the last tile of a level, which is much of a small one."""


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of a slide."""

    size: Size
    downsample: float
    """Level 0 pixels per pixel of this level; exactly 1.0 for level 0."""
    stated_mpp: float | None = field(default=None, compare=False)
    """Um/px in x that the file states for this level; its size may say something else."""


def pyramid(sizes: Sequence[Size], stated_mpp: Sequence[float | None] = ()) -> tuple[Level, ...]:
    """Levels from their sizes, finest first, and what the file states of each one's pixel size.

    The downsample is the mean of both axes, except that a level whose size is the base divided by a power of two and
    rounded is that power exactly: the remainder that rounding cut off is no change of scale.
    """
    stated = [*stated_mpp, *([None] * (len(sizes) - len(stated_mpp)))]
    return tuple(Level(size, _downsample(sizes[0], size), mpp) for size, mpp in zip(sizes, stated, strict=True))


def stated_downsample(base: Level, level: Level) -> float | None:
    """The downsample of ``level`` by the stated pixel sizes, where padding can explain why its size gives another.

    None where both agree within two pixels, and where they differ so much that the statement cannot be true.
    """
    if not (base.stated_mpp and level.stated_mpp):
        return None
    stated = level.stated_mpp / base.stated_mpp
    difference = abs(stated / level.downsample - 1)
    return stated if difference <= MOST_PADDING and difference * max(level.size) > 2 else None


def cropped(base: Size, size: Size, downsample: float) -> Size:
    """The part of a level of ``size`` that shows the slide and not padding."""
    return Size(
        min(size.height, max(1, round(base.height / downsample))),
        min(size.width, max(1, round(base.width / downsample))),
    )


def possible_downsamples(base: Size, level: Level) -> list[float]:
    """Other downsamples that ``level`` may have when it is padded or cut off: of one axis, whole, a power of two.

    None that would move the level's last pixel by less than a pixel.
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
    # Half a pixel of rounding, or a whole one when scanners halve and cut again and again.
    exact = abs(base.height / power - size.height) < 1 and abs(base.width / power - size.width) < 1
    return power if exact else mean


def shows_same_field(size: Size, base: Size) -> bool:
    """Whether a plane of ``size`` can show all of ``base``, smaller: same shape within one pixel and half a percent."""
    expected = base.height * size.width / base.width
    return abs(expected - size.height) <= 1.5 + 0.005 * expected


def check_plane(path: Path, size: Size) -> None:
    """Refuse a plane that no scanner makes; believing it would ask for memory that does not exist.

    Raises:
        UnsupportedSlideError: more than ``LARGEST_SIDE`` pixels along one side, or none.
    """
    if not all(0 < side <= LARGEST_SIDE for side in size):
        raise UnsupportedSlideError(
            f"{path}: an image of {size.width} x {size.height} px is no slide; the file is damaged"
        )
