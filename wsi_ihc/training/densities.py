"""Optical densities of images, in which stains add up, and the dyes as directions of density."""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.measures import density, dyes
from wsi_ihc.measures.density import density_table

Densities = NDArray[np.float32]

HAEMATOXYLIN, EOSIN, DAB = (np.array(dye, np.float32) for dye in (dyes.HAEMATOXYLIN, dyes.EOSIN, dyes.DAB))
COUNTERSTAIN = np.array(dyes.COUNTERSTAIN, np.float32)
"""Red, green and blue, ``(3,)`` each."""

_TABLE = density_table()


def optical_density(image: NDArray[np.uint8]) -> Densities:
    """Natural optical density, of the image's shape: 0 at grey level 255; one grey level is added to stay finite."""
    return density.optical_density(image, _TABLE)


def blurred(values: NDArray[Any], sigma: float) -> Densities:
    """The Gaussian mean around every pixel of ``(h, w)``; ``sigma`` in pixels."""
    return cast(Densities, cv2.GaussianBlur(values.astype(np.float32), (0, 0), sigma))


def unit(vector: Densities) -> Densities:
    """The same direction, of length 1."""
    direction: Densities = vector / np.linalg.norm(vector)
    return direction
