"""An IHC-like target for H&E that has no IHC partner: the same tissue with its stains exchanged.

Not a prediction and no evidence of HER2: a drawing. It lets a generator see the colours of real scanners while the
phantom teaches it where brown belongs. Nuclei keep their own texture in counterstain blue, eosin and red cells go, and
membranes are drawn around what looks like epithelium (``draw_membranes``).

Stain separation follows Ruifrok and Johnston 2001 with the vectors of each image found as by Macenko et al. 2009.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.measures.density import density_tables, optical_density
from wsi_ihc.training.densities import COUNTERSTAIN, DAB, EOSIN, HAEMATOXYLIN, Densities, blurred, unit
from wsi_ihc.training.membranes import draw_membranes
from wsi_ihc.training.nuclei import find_nuclei

# How much of each dye the target gets, as densities of what is darkest.
_NUCLEAR = 1.25
_STROMA = 0.08
_BROWN = 1.25
_BLUSH = 0.16
"""What a cell between its membranes takes of their brown, its nucleus less."""
_CYTOPLASM = 0.3
"""Share of its haematoxylin that the rest of a cell keeps: IHC is counterstained lightly, and nuclei must stand out."""
GLASS = 246
"""Grey level of bare glass in every drawn target: that of a usual scanner, white to the eye. Nothing in the H&E
tells how bright the lamp of the IHC's scanner was: learnt from lamps of all kinds, glass would come out as grey as
their median."""


def restain(he: NDArray[np.uint8], mpp: float, *, brown: bool = True) -> NDArray[np.uint8]:
    """The H&E image ``(h, w, 3)`` at ``mpp`` um/px as haematoxylin with DAB on membranes (or without ``brown``)."""
    nuclear, eosin = separate(he)
    nuclei = find_nuclei(nuclear, eosin, mpp)
    inside = blurred(nuclei.labels > 0, 0.4 / mpp)
    counterstain = nuclear * (_CYTOPLASM + (1 - _CYTOPLASM) * inside)
    density = _NUCLEAR * counterstain[..., None] * COUNTERSTAIN
    density += _STROMA * eosin[..., None] * (COUNTERSTAIN + DAB) / 2
    if brown:
        membranes = draw_membranes(nuclei, nuclear + eosin, mpp)
        density += _BROWN * (membranes.lines + _BLUSH * membranes.inside * (1 - 0.6 * inside))[..., None] * DAB
    painted: NDArray[np.uint8] = np.clip(GLASS * np.exp(-density), 0, 255).round().astype(np.uint8)
    return painted


def separate(he: NDArray[np.uint8]) -> tuple[Densities, Densities]:
    """Amounts of haematoxylin and eosin, ``(h, w)`` each, scaled so that the darkest hundredth of tissue is 1."""
    white = np.maximum(np.percentile(he.reshape(-1, 3), 99, axis=0), 200)
    density = np.maximum(optical_density(he, density_tables(white)), 0)
    inverse = np.linalg.pinv(_stain_vectors(density)).astype(np.float32)
    amounts = np.maximum(density @ inverse, 0)
    tissue = density.sum(axis=2) > 0.3
    if tissue.sum() > 100:
        # An image of glass and a few specks has no darkest hundredth worth the name, hence the lower bound.
        amounts /= np.maximum(np.percentile(amounts[tissue], 99, axis=0), 0.4).astype(np.float32)
    # Haematoxylin takes a good share of the red light; red cells, which no pair of vectors explains, take next to none.
    red = density[..., 0] / np.maximum(density[..., 1], 0.05)
    return amounts[..., 0] * np.clip((red - 0.15) / 0.15, 0, 1), amounts[..., 1]


def _stain_vectors(density: Densities) -> NDArray[np.float32]:
    """Haematoxylin and eosin of this image, ``(2, 3)`` of unit length: the extremes in the plane of its densities."""
    usual = np.stack([HAEMATOXYLIN, unit(EOSIN)])
    pixels = density.reshape(-1, 3)[:: max(1, density.size // 300_000)]
    pixels = pixels[(pixels.max(axis=1) > 0.15) & (pixels.max(axis=1) < 2.5)]
    if len(pixels) < 1000:
        return usual
    _, axes = np.linalg.eigh(np.cov(pixels.T))
    plane = axes[:, [2, 1]] * np.where(axes[:, [2, 1]].sum(axis=0) < 0, -1, 1)
    angles = np.arctan2(*(pixels @ plane)[:, ::-1].T)
    extremes = np.percentile(angles, [1, 99])
    found = np.abs(np.stack([np.cos(extremes), np.sin(extremes)], axis=1) @ plane.T)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    # Haematoxylin is the one that takes more red.
    found = found[np.argsort(-found[:, 0] / found[:, 1])]
    plausible = (found * usual).sum(axis=1) > np.cos(np.deg2rad(28))
    return np.where(plausible[:, None], found, usual).astype(np.float32)
