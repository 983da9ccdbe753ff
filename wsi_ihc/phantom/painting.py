"""A window of a section turned into stain: how much of each dye lies over every pixel."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from wsi_ihc.phantom.architecture import REACH_UM, Maps, draw_maps
from wsi_ihc.phantom.cells import DUCTAL, LYMPHOCYTE, MARGIN_UM, TUMOUR, Cells, place_cells
from wsi_ihc.phantom.membranes import Territories, draw_territories
from wsi_ihc.phantom.noise import Floats, Grid, grain, wrapped
from wsi_ihc.phantom.nuclei import Nuclei, draw_nuclei
from wsi_ihc.phantom.patches import Canvas
from wsi_ihc.phantom.section import Section
from wsi_ihc.phantom.stroma import Collagen, draw_collagen, draw_fat

CELL_REACH_UM = 12.0
"""A cell's centre is at most this far from anything it draws."""


@dataclass(frozen=True, slots=True)
class Stains:
    """Dye over every pixel, (height, width) each; 1 is a usual full stain."""

    haematoxylin: Floats
    eosin: Floats
    blood: Floats
    counterstain: Floats
    dab: Floats


@dataclass(frozen=True, slots=True)
class Surface:
    """Maps brought to the canvas's resolution."""

    tissue: Floats
    epithelium: Floats
    lumen: Floats
    fat: Floats
    vessel: Floats
    cleft: Floats
    necrosis: Floats
    thickness: Floats


def paint(section: Section, canvas: Canvas) -> Stains:
    """The stains over a canvas; its corner must lie on even pixels, its sides be multiples of the map step."""
    maps, inner = _maps(section, canvas)
    window = Grid(
        canvas.top * canvas.um_per_px - CELL_REACH_UM,
        canvas.left * canvas.um_per_px - CELL_REACH_UM,
        canvas.um_per_px,
        canvas.height + int(2 * CELL_REACH_UM / canvas.um_per_px),
        canvas.width + int(2 * CELL_REACH_UM / canvas.um_per_px),
    )
    cells = place_cells(section, maps, window)
    nuclei = draw_nuclei(section, cells, canvas)
    lining = cells.of(TUMOUR, DUCTAL)
    territories = draw_territories(
        canvas, lining.y, lining.x, lining.radius - 5, lining.luck[:, 2], reach_um=9.0, roughness_um=0.7
    )
    surface = Surface(*(_upscale(getattr(maps, name)[inner], canvas) for name in Surface.__slots__))
    collagen = draw_collagen(maps, _upscale(maps.across[inner], canvas), _upscale(maps.along[inner], canvas))
    fat = draw_fat(section, canvas) if float(surface.fat.max()) > -8 else np.zeros_like(surface.fat)
    return _compose(section, canvas, surface, collagen, fat, nuclei, lining, territories)


def map_step(um_per_px: float) -> int:
    """Pixels per map sample: a power of two, about 2 um."""
    return int(2 ** np.clip(round(np.log2(2.0 / um_per_px)), 0, 5))


def _maps(section: Section, canvas: Canvas) -> tuple[Maps, tuple[slice, slice]]:
    """Maps that reach far enough beyond the canvas, and the slices that bring them back to it."""
    step = map_step(canvas.um_per_px)
    pitch = step * canvas.um_per_px
    margin = int(np.ceil((max(REACH_UM, MARGIN_UM) + CELL_REACH_UM + 8) / pitch))
    height, width = canvas.height // step, canvas.width // step
    # Sample (i, j) is the centre of a square of step x step pixels.
    grid = Grid(
        (canvas.top // step - margin + 0.5) * pitch,
        (canvas.left // step - margin + 0.5) * pitch,
        pitch,
        height + 2 * margin,
        width + 2 * margin,
    )
    return draw_maps(section, grid), (slice(margin, margin + height), slice(margin, margin + width))


def _upscale(field: Floats, canvas: Canvas) -> Floats:
    return cv2.resize(field, (canvas.width, canvas.height), interpolation=cv2.INTER_LINEAR)


def _ramp(distance: Floats, low: float, high: float) -> Floats:
    """0 below ``low``, 1 above ``high``, straight between."""
    scale = np.float32(1 / (high - low))
    return np.clip(distance * scale - np.float32(low) * scale, 0, 1)


def _compose(
    section: Section,
    canvas: Canvas,
    surface: Surface,
    collagen: Collagen,
    fat_gap: Floats,
    nuclei: Nuclei,
    lining: Cells,
    territories: Territories,
) -> Stains:
    """Layer by layer, in the order in which they cover each other."""
    texture = wrapped(grain(74, 1.1), canvas.top, canvas.left, canvas.height, canvas.width)
    coarse = wrapped(grain(75, 3.5), canvas.top, canvas.left, canvas.height, canvas.width)
    # Collagen: pink, threads darker, cracks white.
    crack = _ramp(collagen.crack - 0.03 * coarse, 0.70, 0.78)
    eosin = 0.26 + 0.34 * collagen.fibre + 0.42 * collagen.bundle
    eosin += 0.03 * texture
    eosin *= 1 - 0.9 * crack
    haematoxylin = 0.05 + 0.05 * collagen.fibre
    # Fat: thin walls around nothing.
    in_fat = _ramp(surface.fat, -3, 3)
    wall = 1 - _ramp(fat_gap, 0.7, 1.7)
    eosin = eosin * (1 - in_fat) + in_fat * wall * 0.62
    haematoxylin *= 1 - in_fat * (1 - wall)
    # Vessels: an eosinophilic wall, an open lumen.
    vessel = surface.vessel
    eosin += 0.18 * _ramp(vessel, -4.5, -2) - 0.0
    open_vessel = _ramp(vessel, -0.4, 0.8)
    eosin *= 1 - open_vessel
    haematoxylin *= 1 - open_vessel
    # Retraction clefts and glass between stroma and nests.
    open_cleft = _ramp(surface.cleft, 0.35, 0.6)
    eosin *= 1 - open_cleft
    haematoxylin *= 1 - open_cleft
    # Epithelium over all that.
    inside = _ramp(surface.epithelium + 0.35 * coarse, -0.9, 0.6) * (1 - _ramp(surface.lumen + 0.5 * coarse, -1.0, 0.4))
    strength = section.strength
    tint = np.concatenate([0.06 * lining.clone + 0.28 * (lining.luck[:, 2] - 0.5), [0.0]]).astype(np.float32)[
        territories.owner
    ]
    border = np.exp(territories.gap * territories.gap * np.float32(-1 / 0.8))
    plasma = 0.50 + 0.12 * strength + tint + 0.07 * coarse + 0.06 * texture + 0.13 * border
    eosin += inside * (plasma - eosin)
    haematoxylin += inside * (0.17 + 0.05 * coarse + 0.5 * np.maximum(tint, 0) - haematoxylin)
    tissue = _ramp(surface.tissue + 0.5 * coarse, -0.8, 0.8) * surface.thickness
    dead = surface.necrosis
    eosin += dead * (0.75 + 0.2 * coarse - eosin)
    in_lumen = _ramp(surface.lumen, -1, 1)
    eosin *= 1 - in_lumen * (1 - dead)
    haematoxylin *= 1 - in_lumen * (1 - dead)
    # Nuclei over their cytoplasm.
    haematoxylin += nuclei.density * np.float32(0.95)
    eosin *= 1 - 0.45 * nuclei.mask
    counterstain = 0.06 + 0.3 * haematoxylin * 0.2 + 0.42 * nuclei.density
    counterstain *= tissue
    counterstain *= _ramp(eosin + haematoxylin, 0.0, 0.25)
    dab = _dab(section, lining, territories, inside, coarse, texture, nuclei)
    return Stains(
        haematoxylin=haematoxylin * tissue,
        eosin=eosin * tissue,
        blood=nuclei.blood * tissue,
        counterstain=counterstain,
        dab=dab * tissue,
    )


def _dab(
    section: Section,
    lining: Cells,
    territories: Territories,
    inside: Floats,
    coarse: Floats,
    texture: Floats,
    nuclei: Nuclei,
) -> Floats:
    """Membrane stain by the HER2 scoring: none; faint and broken; moderate, patchy; intense chicken wire."""
    expression = _expression(section, lining)
    width = np.float32(0.75 + 0.45 * section.strength)
    border = np.exp(territories.gap * territories.gap * (-0.5 / (2 * width) ** 2))
    complete = {"0": -0.2, "1+": 0.15, "2+": 0.75, "3+": 1.1}[section.her2]
    # Broken membranes: the stain keeps to stretches chosen by a smooth texture.
    stretch = np.clip(complete + 0.45 * coarse, 0, 1)
    level = np.concatenate([expression, [0.0]]).astype(np.float32)[territories.owner]
    dab = level * (border * stretch * (0.9 + 0.12 * texture) + 0.10 * (1 - 0.6 * nuclei.mask))
    return (dab + 0.012) * inside


def _expression(section: Section, cells: Cells) -> Floats:
    """HER2 on each cell's membrane: the level, the clone it belongs to, and chance. Benign ducts stay almost negative."""
    peak, spread, share = {
        "0": (0.05, 0.3, 0.06),
        "1+": (0.26, 0.3, 0.5),
        "2+": (0.62, 0.45, 0.8),
        "3+": (1.35, 0.22, 0.97),
    }[section.her2]
    chance = cells.luck[:, 3] - 0.5
    value = peak * (1 + spread * (0.7 * cells.clone + 0.9 * chance))
    value = value * np.clip((share - cells.luck[:, 0] + 0.12 * cells.clone) * 6, 0, 1)
    return np.where(cells.kind == TUMOUR, np.clip(value, 0, None), 0.02).astype(np.float32)
