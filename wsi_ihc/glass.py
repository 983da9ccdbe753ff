"""What a generator makes of bare glass: the colour of all that a slide has beside its tissue.

Scanners show glass as a light grey, and a generator that has learnt from their images paints it so. Around tissue that
would be a halo on pure white; so what is not stained takes the colour that the generator gives to this slide's glass.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.encoding import WHITE, Colour
from wsi_ihc.geometry import Region
from wsi_ihc.slides import SlideView
from wsi_ihc.tissue import TissueMask
from wsi_ihc.tissue.segmentation import ASSUMED_GLASS

SIDE_PX = 256
"""Of the square of glass that is looked at, at least."""
_DARKEST = 200
"""A darker answer is no glass: white is kept."""


def read_glass(view: SlideView, mask: TissueMask, side_px: int) -> NDArray[np.uint8]:
    """A square of the slide's glass, (side_px, side_px, 3): the one farthest from tissue and from the plane's edge.

    Where tissue leaves no room for it, what scanners usually show.
    """
    free = np.pad(~mask.pixels, 1).astype(np.uint8)
    distance = cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_5)[1:-1, 1:-1]
    row, column = np.unravel_index(int(distance.argmax()), distance.shape)
    top, left = (int((at + 0.5) * mask.downsample - side_px / 2) for at in (row, column))
    region = Region(top, left, side_px, side_px)
    has_room = distance[row, column] * mask.downsample >= side_px / math.sqrt(2)
    if has_room and region.intersection(Region(0, 0, *view.size)) == region:
        return view.read(region)
    return np.full((side_px, side_px, 3), ASSUMED_GLASS, np.uint8)


def colour_of_glass(stained: NDArray[np.uint8]) -> Colour:
    """The median colour of a stained square of glass, (side, side, 3); white where it is too dark to be glass.

    Only the middle counts: borders see the end of the window.
    """
    quarter = stained.shape[0] // 4
    middle = stained[quarter:-quarter, quarter:-quarter]
    red, green, blue = (int(value) for value in np.median(middle.reshape(-1, 3), axis=0))
    return (red, green, blue) if min(red, green, blue) >= _DARKEST else WHITE
