"""Cell membranes drawn where real H&E shows what looks like epithelium.

A drawing and no evidence of HER2: H&E does not show which membranes carry it. Cells grow around nuclei until they
touch, and the lines where cells of a cluster touch are the membranes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects
from scipy.special import erfinv

from wsi_ihc.training.densities import Densities, blurred
from wsi_ihc.training.nuclei import Labels, Nuclei

_CELL_UM = 4.5
"""How far a cell reaches from its nucleus, at most."""
_FREE_SIDE = 0.6
"""How strong the membrane of a cell's free side is beside one that two cells share."""
_TISSUE_UM, _LEAST_TISSUE = 1.5, 0.2
"""A cell's fine cracks are its own; glass is where this blur leaves less dye than that."""
_ROUNDING_UM = 0.8
"""Borders of cells are smooth over about twice this."""
_LINE_UM = 0.55
"""Sigma of a membrane's profile: about 1.3 um wide at half its height."""


@dataclass(frozen=True, slots=True)
class Membranes:
    """``(h, w)`` in [0, 1] each: how much a pixel lies on a membrane, and how surely in a cell of epithelium."""

    lines: Densities
    inside: Densities


def draw_membranes(nuclei: Nuclei, stained: Densities, mpp: float) -> Membranes:
    """Membranes of the cells around ``nuclei`` at ``mpp`` um/px; none on glass, where ``stained``, the sum of all dyes
    ``(h, w)``, is next to none.
    """
    tissue = blurred(stained, _TISSUE_UM / mpp) > _LEAST_TISSUE
    distance, nearest = distance_transform_edt(nuclei.labels == 0, return_indices=True)
    cells: Labels = np.where(tissue & (distance < _CELL_UM / mpp), nuclei.labels[tuple(nearest)], 0)
    owner, rival, gap = _contested(cells, _ROUNDING_UM / mpp)
    mine, other = nuclei.epithelial[owner], nuclei.epithelial[rival]
    # A cell's free side stains as well, but its place is known less.
    strength = np.where((owner > 0) & (rival > 0), np.minimum(mine, other), _FREE_SIDE * np.maximum(mine, other))
    # Two half-planes, blurred, differ by erf(x / (sqrt(2) sigma)) at a distance x from their border.
    away = erfinv(np.minimum(gap, np.float32(0.999))) * np.float32(np.sqrt(2) * _ROUNDING_UM)
    lines = strength * np.exp(away**2 / np.float32(-2 * _LINE_UM**2))
    return Membranes(lines, blurred(nuclei.epithelial[cells], _ROUNDING_UM / mpp))


def _contested(cells: Labels, sigma: float) -> tuple[Labels, Labels, Densities]:
    """To which cell each pixel belongs, to which it nearly does, and how decided that is; no cell, 0, counts as one.

    Each cell, blurred by ``sigma``, has a share of a pixel. Where the two largest shares are equal runs a border, and
    it is smooth and has no favourite direction, unlike the borders of cells that are made of pixels.
    """
    first = blurred(cells == 0, sigma)
    second = np.zeros_like(first)
    owner, rival = np.zeros_like(cells), np.zeros_like(cells)
    margin = ceil(3 * sigma)
    for number, box in enumerate(find_objects(cells), start=1):
        if box is None:
            continue
        at = tuple(slice(max(0, side.start - margin), side.stop + margin) for side in box)
        share = blurred(cells[at] == number, sigma)
        leads = share > first[at]
        follows = ~leads & (share > second[at])
        second[at] = np.where(leads, first[at], np.where(follows, share, second[at]))
        rival[at] = np.where(leads, owner[at], np.where(follows, number, rival[at]))
        first[at], owner[at] = np.where(leads, share, first[at]), np.where(leads, number, owner[at])
    return owner, rival, first - second
