"""Nuclei: outline, rim, chromatin and nucleoli of every kind of cell, and the red cells that have none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wsi_ihc.phantom.cells import DEBRIS, DUCTAL, ENDOTHELIUM, FIBROBLAST, LYMPHOCYTE, RED_CELL, TUMOUR, Cells
from wsi_ihc.phantom.noise import Floats, grain
from wsi_ihc.phantom.patches import Canvas, Patches, patches, texture_windows
from wsi_ihc.phantom.section import Section


@dataclass(frozen=True, slots=True)
class Nuclei:
    """Layers over one canvas."""

    density: Floats
    """Haematoxylin in nuclei."""
    mask: Floats
    """Share of a pixel under a nucleus."""
    blood: Floats
    """Red cells."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """How each nucleus looks; lengths in um, (cells,) each."""

    a: Floats
    b: Floats
    bend: Floats
    wave: Floats
    lobe: Floats
    body: Floats
    rim: Floats
    chromatin: Floats
    nucleolus: Floats
    nucleolus_y: Floats
    nucleolus_x: Floats


def draw_nuclei(section: Section, cells: Cells, canvas: Canvas) -> Nuclei:
    """All nuclei and red cells over the canvas."""
    shape = (canvas.height, canvas.width)
    nuclei = Nuclei(np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.float32))
    for group, reach_um in (
        (cells.of(TUMOUR), 8.0),
        (cells.of(DUCTAL, LYMPHOCYTE, DEBRIS), 5.5),
        (cells.of(FIBROBLAST, ENDOTHELIUM), 10.0),
    ):
        shapes = _shapes(section, group)
        for chunk in patches(canvas, group.y, group.x, reach_um):
            _stamp(nuclei, chunk, group, shapes, canvas)
    _draw_red_cells(nuclei, cells.of(RED_CELL), canvas)
    return nuclei


def _shapes(section: Section, cells: Cells) -> Shapes:
    kind, luck, strength = cells.kind, cells.luck, section.strength
    tumour, spindle = kind == TUMOUR, (kind == FIBROBLAST) | (kind == ENDOTHELIUM)
    size = np.select(
        [tumour, kind == DUCTAL, kind == LYMPHOCYTE, kind == DEBRIS],
        [
            cells.radius * (0.92 + 0.06 * strength) * (0.84 + 0.28 * luck[:, 0]),
            cells.radius * 0.97,
            cells.radius * 1.12,
            cells.radius * 0.5,
        ],
        3.6 + 2.6 * luck[:, 0] ** 2,
    )
    aspect = 1 + (0.15 + 0.35 * luck[:, 1] ** 2)
    aspect = np.where(spindle, 2.4 + 4.0 * luck[:, 1], aspect)
    aspect = np.where(kind == LYMPHOCYTE, 1 + 0.18 * luck[:, 1], aspect)
    mitosis = tumour & (luck[:, 2] < 0.002 + 0.004 * strength)
    aspect = np.where(mitosis, 1.7 + 2.0 * luck[:, 1], aspect)
    root = np.sqrt(aspect)
    a = np.where(spindle, size * 1.35, size * root)
    b = np.where(spindle, 0.95 + size * 0.9 / aspect, size / root)
    dark = luck[:, 3]
    body = np.select(
        [mitosis, tumour, kind == DUCTAL, kind == LYMPHOCYTE, kind == DEBRIS],
        [
            np.full_like(dark, 1.9),
            0.50 + 0.60 * dark**2.5 + 0.1 * strength * dark,
            0.85 + 0.35 * dark,
            0.95 + 0.55 * dark,
            0.9 + 0.5 * dark,
        ],
        0.75 + 0.5 * dark,
    )
    vesicular = tumour & ~mitosis
    hollow = np.where(vesicular, 0.42 - 0.36 * dark, 0.10)
    prominent = vesicular & (luck[:, 1] < 0.35 + 0.4 * strength) & (dark < 0.8)
    turn = 2 * np.pi * (luck[:, 2] * 97 % 1)
    pleomorphism = np.where(tumour, 0.05 + 0.05 * strength, 0.05)
    return Shapes(
        a=a.astype(np.float32),
        b=b.astype(np.float32),
        bend=np.where(spindle, (luck[:, 3] - 0.5) * 0.9, (luck[:, 0] - 0.5) * 0.3).astype(np.float32),
        wave=((luck[:, 1] - 0.5) * 3 * pleomorphism).astype(np.float32),
        lobe=np.where(mitosis, 0.35, pleomorphism).astype(np.float32),
        body=(body * (1 - hollow)).astype(np.float32),
        rim=(body * hollow * 1.3 + 0.05).astype(np.float32),
        chromatin=(np.where(vesicular, 0.32, 0.20) * body).astype(np.float32),
        nucleolus=np.where(prominent, 0.55 + 0.35 * strength, 0).astype(np.float32),
        nucleolus_y=(0.4 * np.sin(turn)).astype(np.float32),
        nucleolus_x=(0.4 * np.cos(turn)).astype(np.float32),
    )


def _column(values: Floats, chunk: Patches) -> Floats:
    return values[chunk.members].astype(np.float32)[:, None, None]


def _stamp(nuclei: Nuclei, chunk: Patches, cells: Cells, shapes: Shapes, canvas: Canvas) -> None:
    """Draw one chunk: an ellipse, bent, waved and roughened, then what is inside it."""
    angle = _column(cells.angle, chunk)
    cos, sin = np.cos(angle), np.sin(angle)
    a, b = _column(shapes.a, chunk), _column(shapes.b, chunk)
    u = (chunk.dx * cos + chunk.dy * sin) / a
    v = (chunk.dy * cos - chunk.dx * sin) / b
    v += _column(shapes.bend, chunk) * (u * u - np.float32(0.35))
    uu, vv = u * u, v * v
    luck = cells.luck[chunk.members]
    rough = texture_windows(grain(71, 4.0), luck[:, 0], chunk.side)
    fine = texture_windows(grain(72, 1.1), luck[:, 1], chunk.side)
    rho = uu + vv
    rho += _column(shapes.wave, chunk) * u * (uu - 3 * vv)
    rho += _column(shapes.lobe, chunk) * rough * np.sqrt(uu + vv)
    # Half a pixel of soft edge on either side of rho = 1, whose slope is 2 / radius.
    sharpness = np.clip(b / np.float32(2.2 * canvas.um_per_px), 0.8, 6)
    inside = np.clip((1 - rho) * sharpness + np.float32(0.5), 0, 1)
    density = _column(shapes.body, chunk) + _column(shapes.chromatin, chunk) * (fine + 0.5 * rough)
    density += _column(shapes.rim, chunk) * np.clip(rho * rho * rho, 0, 1.2)
    if shapes.nucleolus.any():
        spot = (u - _column(shapes.nucleolus_x, chunk)) ** 2 + (v - _column(shapes.nucleolus_y, chunk)) ** 2
        density += _column(shapes.nucleolus, chunk) * np.clip(1.3 - spot * 22, 0, 1)
    np.maximum(density, 0.15, out=density)
    density *= inside
    for index in range(len(chunk.members)):
        where, part = chunk.place(index, canvas.height, canvas.width)
        target = nuclei.density[where]
        np.maximum(target, density[index][part], out=target)
        target = nuclei.mask[where]
        np.maximum(target, inside[index][part], out=target)


def _draw_red_cells(nuclei: Nuclei, cells: Cells, canvas: Canvas) -> None:
    """Biconcave discs: denser towards the rim."""
    for chunk in patches(canvas, cells.y, cells.x, 4.5):
        luck = cells.luck[chunk.members]
        squash = (0.75 + 0.5 * luck[:, 0])[:, None, None]
        rho = (chunk.dy**2 * squash + chunk.dx**2 / squash) / np.float32(3.2**2)
        rho += 0.25 * texture_windows(grain(71, 3.0), luck[:, 1], chunk.side) * rho
        disc = (
            np.clip((1 - rho) * 2.5, 0, 1) * (0.75 + 0.3 * np.clip(rho, 0, 1)) * (0.7 + 0.3 * luck[:, 2])[:, None, None]
        )
        for index in range(len(chunk.members)):
            where, part = chunk.place(index, canvas.height, canvas.width)
            target = nuclei.blood[where]
            np.maximum(target, disc[index][part], out=target)
