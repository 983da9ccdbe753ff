"""Bare glass brought to one grey level: the only difference between scanners that may be taken out of a target.

Brightness may not. Where the mean greys of the two sides differ, matching them turns pale stain into strong stain.
Glass is white on every slide, so its level says what the lamp and the camera did, and nothing about the stain.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from wsi_ihc.training.examples import Image
from wsi_ihc.training.restain import GLASS

_LEAST = 0.005
"""Share of an image that must look like glass before its level is believed."""


def glass_of(image: Image) -> tuple[float, float, float] | None:
    """Red, green and blue of the bare glass in ``(h, w, 3)``; None where too little of it is seen.

    Glass is nearly white: every channel above 200, and no two of them 25 levels apart.
    """
    smooth = cv2.blur(image, (5, 5)).reshape(-1, 3)
    bright = smooth[(smooth.min(axis=1) > 200) & (np.ptp(smooth, axis=1) < 25)]
    if len(bright) < _LEAST * len(smooth):
        return None
    red, green, blue = np.percentile(bright, 90, axis=0)
    return float(red), float(green), float(blue)


def match_glass(image: Image) -> Image:
    """The image with its glass at the level of drawn targets, each channel scaled; unchanged where none is seen."""
    glass = glass_of(image)
    if glass is None:
        return image
    table = np.arange(256)[:, None] * (GLASS / np.array(glass))[None]
    return cast(Image, cv2.LUT(image, np.clip(table, 0, 255).round().astype(np.uint8)[None]))
