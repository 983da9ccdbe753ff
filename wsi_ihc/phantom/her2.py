"""The HER2 stain: which membranes take DAB, how much, and how completely.

After the scoring that pathologists use (ASCO/CAP 2018): 0, no staining or faint in at most a tenth of the cells; 1+,
faint and incomplete in more than a tenth; 2+, weak to moderate and complete; 3+, intense and complete: chicken wire.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from wsi_ihc.measures.her2 import Her2
from wsi_ihc.phantom.cells import TUMOUR, Cells
from wsi_ihc.phantom.membranes import Territories, per_pixel
from wsi_ihc.phantom.noise import Floats, single
from wsi_ihc.phantom.section import Section


@dataclass(frozen=True, slots=True)
class Score:
    """One HER2 score."""

    density: float
    """Optical density of a typical stained membrane."""
    spread: float
    """Relative variation of the density between cells."""
    share: float
    """Share of tumour cells that stain."""
    complete: float
    """Completeness of the membranes: a stretch stains where this plus noise is above 0."""


def score(her2: Her2) -> Score:
    """The parameters of a score."""
    match her2:
        case "0":
            return Score(density=0.06, spread=0.3, share=0.06, complete=-0.2)
        case "1+":
            return Score(density=0.26, spread=0.3, share=0.5, complete=0.1)
        case "2+":
            return Score(density=0.44, spread=0.5, share=0.75, complete=0.7)
        case "3+":
            return Score(density=1.25, spread=0.22, share=0.97, complete=1.2)


def draw_dab(
    section: Section,
    lining: Cells,
    territories: Territories,
    rim: Floats,
    inside: Floats,
    nuclei: Floats,
    texture: Floats,
    coarse: Floats,
) -> Floats:
    """Optical density of DAB over a canvas. ``rim`` is twice the distance to a cell's border, um."""
    level = score(section.her2)
    width = np.float32(1.0 + 0.4 * section.strength)
    border = np.exp(rim * rim * (-0.5 / width**2))
    # Broken membranes: the stain keeps to stretches chosen by a smooth texture.
    stretch = np.clip(level.complete + 0.5 * coarse, 0, 1)
    # The stain spreads a little across the border of the cell that makes it.
    amount = single(cv2.blur(per_pixel(_expression(section, lining), territories), (3, 3)))
    grains = 1 + 0.16 * texture + 0.10 * coarse
    dab = amount * grains * (border * stretch + 0.17 * (1 - 0.6 * nuclei))
    return single((dab + 0.012) * inside)


def _expression(section: Section, cells: Cells) -> Floats:
    """HER2 on the membrane of each cell: from the score, its clone, and chance. Benign ducts are almost negative.

    Within a score, H&E has information too: the numbers that make a nucleus large and dark also make its cell stain.
    """
    level = score(section.her2)
    chance = cells.luck[:, 3] - 0.5
    value = level.density * (1 + level.spread * (0.7 * cells.clone + 0.9 * chance))
    value = value * np.clip((level.share - 1 + cells.luck[:, 0] + 0.12 * cells.clone) * 6, 0, 1)
    return single(np.where(cells.kind == TUMOUR, np.clip(value, 0, None), 0.02))
