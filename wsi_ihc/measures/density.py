"""Optical density (Beer-Lambert): the one place where grey levels become amounts of stain, which add up.

Density is the logarithm of glass over pixel. Three things must be chosen, and each caller states its own: the level of
the glass, whose density is 0; the base (10 in pathology, e where densities go back through ``exp``); and what keeps
black finite.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

DECADIC = 10.0


def density_table(white: float = 255.0, *, base: float = math.e, added: float = 1.0) -> NDArray[np.float32]:
    """Optical density of the grey levels 0 to 255, (256,): ``log((white + added) / (level + added))``.

    Levels above ``white`` have a negative density. With ``added = 0`` level 0 counts as level 1.
    """
    levels = np.arange(256, dtype=np.float64)
    if not added:
        levels[0] = 1.0
    table = np.log((white + added) / (levels + added))
    return (table / math.log(base) if base != math.e else table).astype(np.float32)


def density_tables(white: NDArray[np.floating], *, base: float = math.e, added: float = 1.0) -> NDArray[np.float32]:
    """Tables for red, green and blue, (256, 3), where the glass has a colour: ``white`` is (3,)."""
    return np.stack([density_table(float(level), base=base, added=added) for level in white], axis=1)


def optical_density(image: NDArray[np.uint8], tables: NDArray[np.float32]) -> NDArray[np.float32]:
    """Densities of an RGB image (…, 3) by :func:`density_table`, or by channel with :func:`density_tables`."""
    if tables.ndim == 1:
        density: NDArray[np.float32] = tables[image]
        return density
    return np.stack([tables[image[..., channel], channel] for channel in range(3)], axis=-1)
