"""Nuclei: outline, rim, chromatin and nucleoli of every kind of cell, and the red cells that have none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wsi_ihc.phantom.cells import DEBRIS, DUCTAL, ENDOTHELIUM, FIBROBLAST, LYMPHOCYTE, RED_CELL, TUMOUR, Cells
from wsi_ihc.phantom.noise import Floats, grain
from wsi_ihc.phantom.patches import Canvas, Patches, patches, texture_windows
from wsi_ihc.phantom.section import Section
from wsi_ihc.phantom.shapes import Shapes, round_shapes, spindle_shapes, tumour_shapes


@dataclass(frozen=True, slots=True)
class Nuclei:
    """Layers over one canvas, (height, width) each."""

    density: Floats
    """Haematoxylin in nuclei; 1 is a usual full stain."""
    mask: Floats
    """Share of a pixel that a nucleus covers, 0 to 1."""
    blood: Floats
    """Stain of red blood cells."""


def draw_nuclei(section: Section, cells: Cells, canvas: Canvas) -> Nuclei:
    """All nuclei and red cells over the canvas."""
    shape = (canvas.height, canvas.width)
    nuclei = Nuclei(np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.float32))
    tumour, small = cells.of(TUMOUR), cells.of(DUCTAL, LYMPHOCYTE, DEBRIS)
    spindles = cells.of(FIBROBLAST, ENDOTHELIUM)
    for group, shapes, reach_um in (
        (tumour, tumour_shapes(tumour, section.strength), 8.0),
        (small, round_shapes(small), 5.5),
        (spindles, spindle_shapes(spindles), 10.0),
    ):
        for chunk in patches(canvas, group.y, group.x, reach_um):
            _stamp(nuclei, chunk, group, shapes, canvas)
    _draw_red_cells(nuclei, cells.of(RED_CELL), canvas)
    return nuclei


def _column(values: Floats, chunk: Patches) -> Floats:
    return values[chunk.members].astype(np.float32)[:, None, None]


def _stamp(nuclei: Nuclei, chunk: Patches, cells: Cells, shapes: Shapes, canvas: Canvas) -> None:
    """Draws a chunk of nuclei: a bent, wavy, rough ellipse, then the chromatin, rim and nucleoli in it."""
    angle = _column(cells.angle, chunk)
    cos, sin = np.cos(angle), np.sin(angle)
    a, b = _column(shapes.a, chunk), _column(shapes.b, chunk)
    u = (chunk.dx * cos + chunk.dy * sin) / a
    v = (chunk.dy * cos - chunk.dx * sin) / b
    v += _column(shapes.bend, chunk) * (u * u - np.float32(0.35))
    uu, vv = u * u, v * v
    luck = cells.luck[chunk.members]
    rough = texture_windows(grain(71, 2.0, canvas.um_per_px), luck[:, 0], chunk.side)
    fine = texture_windows(grain(72, 0.55, canvas.um_per_px), luck[:, 1], chunk.side)
    rho = uu + vv
    rho += _column(shapes.wave, chunk) * u * (uu - 3 * vv)
    rho += _column(shapes.lobe, chunk) * rough * np.sqrt(uu + vv)
    # Half a pixel of soft edge on either side of rho = 1, whose slope is 2 / radius.
    sharpness = np.clip(b / np.float32(2.2 * canvas.um_per_px), 0.8, 6) * _column(shapes.focus, chunk)
    inside = np.clip((1 - rho) * sharpness + np.float32(0.5), 0, 1)
    density = _column(shapes.body, chunk) + _column(shapes.chromatin, chunk) * (fine + 0.5 * rough)
    density += _column(shapes.rim, chunk) * np.clip(rho * rho * rho, 0, 1.2)
    if shapes.nucleolus.any():
        turn = 2 * np.pi * (luck[:, 2] * 97 % 1)[:, None, None]
        spot = (u - 0.4 * np.cos(turn)) ** 2 + (v - 0.4 * np.sin(turn)) ** 2
        density += _column(shapes.nucleolus, chunk) * np.clip(1.3 - spot * 22, 0, 1)
    np.maximum(density, 0.15, out=density)
    density *= inside
    chunk.lay(nuclei.density, density)
    chunk.lay(nuclei.mask, inside)


def _draw_red_cells(nuclei: Nuclei, cells: Cells, canvas: Canvas) -> None:
    """Draws red blood cells: biconcave discs, denser towards the rim."""
    for chunk in patches(canvas, cells.y, cells.x, 4.5):
        luck = cells.luck[chunk.members]
        squash = (0.75 + 0.5 * luck[:, 0])[:, None, None]
        rho = (chunk.dy**2 * squash + chunk.dx**2 / squash) / np.float32(3.2**2)
        rho += 0.25 * texture_windows(grain(71, 2.0, canvas.um_per_px), luck[:, 1], chunk.side) * rho
        colour = (0.7 + 0.3 * luck[:, 2])[:, None, None]
        chunk.lay(nuclei.blood, np.clip((1 - rho) * 2.5, 0, 1) * (0.75 + 0.3 * np.clip(rho, 0, 1)) * colour)
