"""The colour of bare glass: on the slide, and after the generator.

Scanners show glass as a light grey, and a generator that has learnt from their images paints it so. Around tissue that
would be a halo on pure white; so what is not stained takes the colour that the generator gives to this slide's glass.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.pyramid.codecs import WHITE, Colour
from wsi_ihc.pyramid.geometry import Region
from wsi_ihc.slides import SlideView
from wsi_ihc.tissue import TissueMask
from wsi_ihc.tissue.segmentation import ASSUMED_GLASS, glass_colour

SIDE_PX = 256
"""Side of the square in which glass is sought, and the least side of the square that is stained."""
_DARKEST = 200
"""A darker colour cannot be glass: white is used instead."""


def slide_glass(view: SlideView, mask: TissueMask) -> tuple[float, float, float]:
    """RGB of the slide's glass where tissue is farthest; what scanners usually show where none is found there."""
    free = np.pad(~mask.pixels, 1).astype(np.uint8)
    distance = cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_5)[1:-1, 1:-1]
    row, column = np.unravel_index(int(distance.argmax()), distance.shape)
    top, left = (int((at + 0.5) * mask.downsample) - SIDE_PX // 2 for at in (row, column))
    square = Region(top, left, SIDE_PX, SIDE_PX).intersection(Region(0, 0, *view.size))
    return glass_colour(view.read(square)) or ASSUMED_GLASS


def stained_glass(
    stain: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], glass: tuple[float, float, float], side_px: int
) -> Colour:
    """The colour, RGB, that ``stain`` gives to ``glass``; white where that is too dark to be glass.

    ``stain`` takes and gives (1, side_px, side_px, 3). Only the middle counts: borders see the end of the window.
    """
    window = np.empty((1, side_px, side_px, 3), np.uint8)
    window[:] = np.rint(glass)
    quarter = side_px // 4
    middle = stain(window)[0, quarter:-quarter, quarter:-quarter]
    red, green, blue = (int(value) for value in np.median(middle.reshape(-1, 3), axis=0))
    return (red, green, blue) if min(red, green, blue) >= _DARKEST else WHITE
