"""The stroma between the cells: collagen in wavy bundles, the cracks of a dried section, fat."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.phantom.membranes import draw_territories
from wsi_ihc.phantom.noise import TEXTURE_PITCH_UM, TEXTURE_SIDE, Floats, Grid, filtered_noise, lattice, single, uniform
from wsi_ihc.phantom.patches import Canvas
from wsi_ihc.phantom.section import Section

ADIPOCYTE_PITCH_UM = 58.0


FINENESS = np.float32(1.2)
"""Fibres are thinner than in the weave by this factor, which leaves room for its interpolation."""


@dataclass(frozen=True, slots=True)
class Collagen:
    """Textures over one canvas, each about 0 to 1."""

    fibre: Floats
    """Fine threads."""
    bundle: Floats
    """Broad bands."""
    crack: Floats
    """Gaps between bundles: large where one runs."""
    wisp: Floats
    """Single fibrils of a loose web: 1 on one."""


@lru_cache(maxsize=1)
def _weave() -> NDArray[np.uint8]:
    """Periodic straight collagen, fibres along x: threads, bundles and cracks as 8-bit channels, and loose fibrils."""
    thread = 0.75 * filtered_noise(81, 0.9, 8) + 0.5 * filtered_noise(82, 1.6, 22) + 0.4 * filtered_noise(89, 0.9, 2.0)
    bundle = 0.8 * filtered_noise(83, 5, 40) + 0.5 * filtered_noise(84, 13, 60)
    split = filtered_noise(85, 2.6, 17) + 0.8 * bundle
    strand = filtered_noise(86, 2.8, 13) + 0.6 * filtered_noise(87, 1.8, 6)
    wisp = np.exp(-((strand / 0.28) ** 2)) * np.clip(0.75 + 0.5 * filtered_noise(88, 8, 30), 0.15, 1)
    channels = (0.5 + 0.22 * thread, 0.5 + 0.24 * bundle, 0.5 + 0.16 * split, wisp)
    return np.stack([np.clip(channel * 255, 0, 255).astype(np.uint8) for channel in channels], axis=-1)


def draw_collagen(across: Floats, along: Floats) -> Collagen:
    """The weave bent along the fibre coordinates (um, over the canvas)."""
    scale = np.float32(1 / TEXTURE_PITCH_UM)
    # Kept small before the look-up, whose coordinates are single precision.
    origin_y = np.floor(float(across[0, 0]) * scale * FINENESS / TEXTURE_SIDE) * TEXTURE_SIDE
    origin_x = np.floor(float(along[0, 0]) * scale / TEXTURE_SIDE) * TEXTURE_SIDE
    woven = cv2.remap(
        _weave(),
        along * scale - np.float32(origin_x),
        across * (scale * FINENESS) - np.float32(origin_y),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )
    return Collagen(*(single(channel) * np.float32(1 / 255) for channel in cv2.split(woven)))


def draw_fat(section: Section, canvas: Canvas) -> Floats:
    """Distance from the wall between two adipocytes, um, over the canvas at half its resolution, scaled up."""
    half = Canvas(canvas.top // 2, canvas.left // 2, canvas.height // 2, canvas.width // 2, canvas.um_per_px * 2)
    grid = Grid(half.top * half.um_per_px, half.left * half.um_per_px, half.um_per_px, half.height, half.width)
    rows, columns = lattice(grid, ADIPOCYTE_PITCH_UM, 90)
    luck = np.stack([uniform(section.seed, 300 + index, rows, columns).ravel() for index in range(4)], axis=-1)
    y = ((rows + np.zeros_like(columns)).ravel() + 0.15 + 0.7 * luck[:, 0]) * ADIPOCYTE_PITCH_UM
    x = ((columns + np.zeros_like(rows)).ravel() + 0.15 + 0.7 * luck[:, 1]) * ADIPOCYTE_PITCH_UM
    cells = draw_territories(
        half, single(y), single(x), 14 * luck[:, 2], luck[:, 3], reach_um=66, roughness_um=1.8, lump_um=5
    )
    return single(cv2.resize(cells.gap / 2, (canvas.width, canvas.height), interpolation=cv2.INTER_LINEAR))
