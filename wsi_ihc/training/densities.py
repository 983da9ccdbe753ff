"""Optical densities of images, where stains add up, and the dyes as directions in them."""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.measures import dyes

Densities = NDArray[np.float32]

HAEMATOXYLIN, EOSIN, DAB = (np.array(dye, np.float32) for dye in (dyes.HAEMATOXYLIN, dyes.EOSIN, dyes.DAB))
COUNTERSTAIN = np.array(dyes.COUNTERSTAIN, np.float32)
"""Red, green and blue, ``(3,)`` each."""

_DENSITY_OF_LEVEL = -np.log((np.arange(256) + 1) / 256).astype(np.float32)


def optical_density(image: NDArray[np.uint8]) -> Densities:
    """``-ln`` of the light that comes through, of the image's shape: 0 at 255, one grey level added to stay finite."""
    density: Densities = _DENSITY_OF_LEVEL[image]
    return density


def blurred(values: NDArray[Any], sigma: float) -> Densities:
    """The Gaussian mean around every pixel of ``(h, w)``; ``sigma`` in pixels."""
    return cast(Densities, cv2.GaussianBlur(values.astype(np.float32), (0, 0), sigma))


def unit(vector: Densities) -> Densities:
    """The same direction, of length 1."""
    direction: Densities = vector / np.linalg.norm(vector)
    return direction
