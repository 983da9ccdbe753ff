"""What a generator makes of bare glass: the colour of all that a slide has beside its tissue.

Scanners show glass as a light grey, and a generator that has learnt from their images paints it so. Around tissue that
would be a halo on pure white; so what is not stained takes the colour that the generator gives to this slide's glass.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.encoding import WHITE, Colour
from wsi_ihc.geometry import Region
from wsi_ihc.slides import SlideView
from wsi_ihc.tissue import TissueMask

SIDE_PX = 256
"""Of the square of glass that is looked at, at least."""
_DARKEST = 200
"""A darker answer is no glass: white is kept."""


def stained_glass(
    stain: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], view: SlideView, mask: TissueMask, side_px: int
) -> Colour:
    """The median colour that ``stain`` gives to a square of glass, or white where the slide has none so large.

    ``stain`` takes and gives (1, side_px, side_px, 3). Only the middle counts: borders see the end of the window.
    """
    region = glass_region(view, mask, side_px)
    if region is None:
        return WHITE
    quarter = side_px // 4
    middle = stain(view.read(region)[None])[0, quarter:-quarter, quarter:-quarter]
    red, green, blue = (int(value) for value in np.median(middle.reshape(-1, 3), axis=0))
    return (red, green, blue) if min(red, green, blue) >= _DARKEST else WHITE


def glass_region(view: SlideView, mask: TissueMask, side_px: int) -> Region | None:
    """The square that lies farthest from tissue and from the edge of the plane; None where none is free of tissue."""
    free = np.pad(~mask.pixels, 1).astype(np.uint8)
    distance = cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_5)[1:-1, 1:-1]
    row, column = np.unravel_index(int(distance.argmax()), distance.shape)
    if distance[row, column] * mask.downsample < side_px / math.sqrt(2):
        return None
    top, left = (int((at + 0.5) * mask.downsample - side_px / 2) for at in (row, column))
    region = Region(top, left, side_px, side_px)
    return region if region.intersection(Region(0, 0, *view.size)) == region else None
