"""The levels of a slide: how much coarser each is than the finest, and which sizes can be levels of one slide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsi_ihc.errors import UnsupportedSlideError
from wsi_ihc.pyramid.geometry import Size

LARGEST_SIDE = 2_000_000
"""Pixels. A glass of 75 mm at 0.05 um/px has 1.5 million."""


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of a slide."""

    size: Size
    downsample: float
    """Level 0 pixels per pixel of this level; exactly 1.0 for level 0."""


def pyramid(sizes: Sequence[Size]) -> tuple[Level, ...]:
    """Levels from their sizes, finest first.

    The downsample is the mean of both axes, except that a level whose size is the base divided by a power of two and
    rounded is that power exactly: the remainder that rounding cut off is no change of scale.
    """
    return tuple(Level(size, _downsample(sizes[0], size)) for size in sizes)


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
