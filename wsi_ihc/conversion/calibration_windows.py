"""Windows of a slide's tissue on which a generator's norm layers are calibrated."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.pyramid.geometry import Region
from wsi_ihc.slides import SlideView
from wsi_ihc.tissue import TissueMask

_LEAST_TISSUE = 0.5
_CANDIDATES_PER_WINDOW = 64
_SEED = 0


def calibration_regions(view: SlideView, mask: TissueMask, *, count: int, side_px: int) -> list[Region]:
    """Up to ``count`` squares of the working plane, spread over the tissue; the same for every grid and every run.

    Candidates are drawn at random over the tissue with a fixed seed; those that are half tissue or more come first, in
    the order drawn, then the fullest of the rest. Overlaps are passed over as long as there are others.
    """
    generator = np.random.default_rng(_SEED)
    pixels = np.argwhere(mask.pixels)
    if not len(pixels):
        pixels = np.argwhere(np.ones_like(mask.pixels))
    drawn = generator.choice(len(pixels), size=count * _CANDIDATES_PER_WINDOW)
    # Anywhere on the part of the plane that a mask pixel covers: without a search for tissue one pixel covers it all.
    within = np.minimum(np.array(view.size) / mask.downsample - pixels, 1)[drawn]
    points = (pixels[drawn] + within * generator.random(within.shape)) * mask.downsample
    regions = [_square_around(point, view, side_px) for point in points]
    fullness = np.array([mask.fraction(region) for region in regions])
    order = np.argsort(-np.minimum(fullness, _LEAST_TISSUE), kind="stable")
    chosen: list[Region] = []
    for region in (regions[index] for index in order):
        if len(chosen) < count and all(region.intersection(other).area == 0 for other in chosen):
            chosen.append(region)
    return chosen


def _square_around(point: NDArray[np.float64], view: SlideView, side_px: int) -> Region:
    """The square about a point of the plane, shifted to lie on it as far as the plane is large enough."""
    corner = (
        int(np.clip(at - side_px / 2, 0, max(0, length - side_px))) for at, length in zip(point, view.size, strict=True)
    )
    top, left = corner
    return Region(top, left, side_px, side_px)


def read_calibration_windows(view: SlideView, mask: TissueMask, *, count: int, side_px: int) -> list[NDArray[np.uint8]]:
    """The pixels of ``calibration_regions``, each ``(1, side_px, side_px, 3)``."""
    regions = calibration_regions(view, mask, count=count, side_px=side_px)
    return [view.read(region)[None] for region in regions]
