"""The stains in a window of a section: the amount of each dye over every pixel."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from wsi_ihc.phantom.architecture import REACH_UM, Maps, draw_maps
from wsi_ihc.phantom.cells import DUCTAL, MARGIN_UM, TUMOUR, Cells, place_cells
from wsi_ihc.phantom.her2 import draw_dab
from wsi_ihc.phantom.membranes import Territories, draw_territories, per_pixel
from wsi_ihc.phantom.noise import Floats, Grid, grain, single, wrapped
from wsi_ihc.phantom.nuclei import Nuclei, draw_nuclei
from wsi_ihc.phantom.patches import Canvas
from wsi_ihc.phantom.section import Section
from wsi_ihc.phantom.stroma import Collagen, draw_collagen, draw_fat

CELL_REACH_UM = 15.0
"""Largest distance from the centre of a cell to any pixel that the cell changes."""


@dataclass(frozen=True, slots=True)
class Stains:
    """Amount of each dye over every pixel, (height, width) each; 1 is a usual full stain."""

    haematoxylin: Floats
    eosin: Floats
    blood: Floats
    counterstain: Floats
    dab: Floats


@dataclass(frozen=True, slots=True)
class Surface:
    """Maps at the resolution of the canvas."""

    tissue: Floats
    epithelium: Floats
    lumen: Floats
    fat: Floats
    looseness: Floats
    hyaline: Floats
    vessel: Floats
    cleft: Floats
    necrosis: Floats
    thickness: Floats


def paint(section: Section, canvas: Canvas) -> Stains:
    """The stains over a canvas. Its corner must lie on even pixels; its sides must be multiples of the map step."""
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
        canvas,
        lining.y,
        lining.x,
        np.minimum(lining.radius - 6, 0),
        lining.luck[:, 2],
        reach_um=12.0,
        roughness_um=0.7,
        lump_um=2.0,
    )
    surface = Surface(*(_upscale(getattr(maps, name)[inner], canvas) for name in Surface.__slots__))
    place = canvas.top, canvas.left, canvas.height, canvas.width
    texture = wrapped(grain(74, 0.55, canvas.um_per_px), *place)
    coarse = wrapped(grain(75, 1.75, canvas.um_per_px), *place)
    # Frayed by a micrometre, so that no two fibres run quite parallel.
    across = _upscale(maps.across[inner], canvas) + np.float32(0.9) * coarse
    collagen = draw_collagen(across, _upscale(maps.along[inner], canvas))
    fat = draw_fat(section, canvas) if float(surface.fat.max()) > -8 else np.zeros_like(surface.fat)
    return _compose(section, surface, collagen, fat, nuclei, lining, territories, texture, coarse)


def map_step(um_per_px: float) -> int:
    """Pixels per map sample: a power of two, about 2 um."""
    return int(2 ** np.clip(round(np.log2(2.0 / um_per_px)), 0, 5))


def _maps(section: Section, canvas: Canvas) -> tuple[Maps, tuple[slice, slice]]:
    """Maps that reach far enough beyond the canvas, and the slices that crop them to it."""
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
    return single(cv2.resize(field, (canvas.width, canvas.height), interpolation=cv2.INTER_LINEAR))


def _ramp(distance: Floats, low: float, high: float) -> Floats:
    """0 below ``low``, 1 above ``high``, linear between."""
    scale = np.float32(1 / (high - low))
    return single(np.clip(distance * scale - np.float32(low) * scale, 0, 1))


def _compose(
    section: Section,
    surface: Surface,
    collagen: Collagen,
    fat_gap: Floats,
    nuclei: Nuclei,
    lining: Cells,
    territories: Territories,
    texture: Floats,
    coarse: Floats,
) -> Stains:
    """The stains of all layers, in the order in which they cover each other."""
    eosin, haematoxylin = _matrix(surface, collagen, fat_gap, texture, coarse)
    inside = _ramp(surface.epithelium + 0.35 * coarse, -0.9, 0.6) * (1 - _ramp(surface.lumen + 0.5 * coarse, -1.0, 0.4))
    # Without a cell there is no epithelium: the thinnest cords have none.
    inside *= 1 - _ramp(territories.nearest, 10.5, 11.9)
    rim = np.minimum(territories.gap, np.clip(surface.epithelium + 0.4 * coarse, 0.15, None) * 2)
    plasma_eosin, plasma_haematoxylin = _cytoplasm(section, lining, territories, rim, texture, coarse)
    eosin += inside * (plasma_eosin - eosin)
    haematoxylin += inside * (plasma_haematoxylin - haematoxylin)
    _kill(surface, coarse, eosin, haematoxylin)
    haematoxylin += nuclei.density
    eosin *= 1 - 0.45 * nuclei.mask
    tissue = _ramp(surface.tissue + 0.5 * coarse, -0.8, 0.8) * surface.thickness
    solid = _ramp(eosin + haematoxylin, 0.0, 0.3)
    counterstain = tissue * (solid * (0.07 + 0.03 * inside + 0.012 * coarse) + 0.46 * nuclei.density)
    return Stains(
        haematoxylin=haematoxylin * tissue,
        eosin=eosin * tissue,
        blood=nuclei.blood * tissue,
        counterstain=counterstain,
        dab=draw_dab(section, lining, territories, rim, inside, nuclei.mask, texture, coarse) * tissue,
    )


def _matrix(
    surface: Surface, collagen: Collagen, fat_gap: Floats, texture: Floats, coarse: Floats
) -> tuple[Floats, Floats]:
    """Eosin and haematoxylin between cells: in collagen, fat, vessel walls, and their gaps."""
    loose = _ramp(surface.looseness + 0.9 * (0.5 - collagen.bundle), 0.15, 0.75)
    dense = 0.49 + (1.0 - 0.75 * surface.hyaline) * (collagen.fibre - 0.5) + 0.40 * (collagen.bundle - 0.5)
    dense += 0.03 * coarse
    web = 0.02 + 0.16 * collagen.fibre + 0.50 * collagen.wisp + 0.05 * coarse
    eosin = dense + loose * (web - dense)
    eosin += 0.07 * texture
    haematoxylin = 0.02 + 0.07 * collagen.fibre + 0.02 * loose
    eosin += 0.2 * _ramp(surface.vessel, -5, -2)
    # Fat: thin walls around nothing.
    fat = _ramp(surface.fat + 1.2 * coarse, -1.2, 0.8)
    wall = (1 - _ramp(fat_gap, 0.3, 1.1)) * np.clip(0.55 + 0.12 * coarse, 0, 1)
    eosin += fat * (wall - eosin)
    haematoxylin *= 1 - fat
    crack = 0.92 * _ramp(collagen.crack - 0.03 * coarse, 0.77, 0.86) * (1 - fat)
    solid = (1 - crack) * (1 - 0.85 * _ramp(surface.vessel, -0.4, 0.8)) * (1 - _ramp(surface.cleft, 0.35, 0.6))
    return eosin * solid, haematoxylin * solid


def _cytoplasm(
    section: Section, lining: Cells, territories: Territories, rim: Floats, texture: Floats, coarse: Floats
) -> tuple[Floats, Floats]:
    """Eosin and haematoxylin of epithelial cells, each with its own tint; eosin rises with the HER2 score."""
    tint = 0.06 * lining.clone + 0.24 * (lining.luck[:, 2] - 0.5)
    tinted = per_pixel(tint, territories)
    border = np.exp(rim * rim * np.float32(-1 / 0.8))
    eosin = 0.31 + 0.155 * section.strength + tinted + 0.05 * coarse + 0.06 * texture + 0.12 * border
    haematoxylin = 0.16 + 0.035 * coarse + 0.035 * texture + 0.4 * np.maximum(tinted, 0)
    return single(eosin), single(haematoxylin)


def _kill(surface: Surface, coarse: Floats, eosin: Floats, haematoxylin: Floats) -> None:
    """Empties lumens, except for the debris of necrosis; changes ``eosin`` and ``haematoxylin`` in place."""
    dead = surface.necrosis
    eosin += dead * (0.75 + 0.2 * coarse - eosin)
    empty = _ramp(surface.lumen, -1, 1) * (1 - dead)
    eosin *= 1 - empty
    haematoxylin *= 1 - empty
