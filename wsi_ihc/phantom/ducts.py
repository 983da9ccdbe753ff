"""Structures with a form of their own, set on hashed lattices: ducts, lobules, ducts filled with tumour, vessels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wsi_ihc.phantom.noise import Floats, Grid, lattice, single, smooth, uniform
from wsi_ihc.phantom.section import Section

DUCT_PITCH_UM = 430.0
VESSEL_PITCH_UM = 120.0
FAR_UM = -1000.0

Window = tuple[slice, slice]
"""Rows and columns of a grid."""


@dataclass(frozen=True, slots=True)
class Ducts:
    """Fields over one grid: distances in um, positive inside; shares from 0 to 1."""

    epithelium: Floats
    lumen: Floats
    benign: Floats
    necrosis: Floats


@dataclass(frozen=True, slots=True)
class Shape:
    """A bent, wavy ellipse: centre and radii in um, angle, bend, phases and depths of its waves."""

    y: float
    x: float
    radius_y: float
    radius_x: float
    angle: float
    bend: float
    phases: tuple[float, float]
    waves: tuple[float, float]

    def depth(self, y: Floats, x: Floats) -> Floats:
        """Roughly the distance to the rim, um, positive inside."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        u = ((x - self.x) * cos + (y - self.y) * sin) / self.radius_x
        v = ((y - self.y) * cos - (x - self.x) * sin) / self.radius_y
        v = v + self.bend * (u * u - 0.3)
        rho = np.sqrt(u * u + v * v)
        phi = np.arctan2(v, u)
        wavy = 1 + self.waves[0] * np.cos(3 * phi + self.phases[0]) + self.waves[1] * np.cos(5 * phi + self.phases[1])
        return single((wavy - rho) * min(self.radius_x, self.radius_y))


def draw_ducts(section: Section, grid: Grid) -> Ducts:
    """Every duct and lobule that reaches into the grid."""
    shape = (grid.height, grid.width)
    canvas = Ducts(
        np.full(shape, FAR_UM, np.float32),
        np.full(shape, FAR_UM, np.float32),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.float32),
    )
    for row, column, numbers in _places(section.seed, 1000, grid, DUCT_PITCH_UM, 260, 12):
        _draw_duct(section.seed, row, column, numbers, grid, canvas)
    ruffle = smooth(section.seed, 60, grid, 6.5)
    canvas.epithelium[...] += 1.2 * smooth(section.seed, 61, grid, 11)
    canvas.lumen[...] += 1.8 * ruffle
    return canvas


def _places(
    seed: int, channel: int, grid: Grid, pitch_um: float, margin_um: float, count: int
) -> Iterator[tuple[int, int, list[float]]]:
    """The lattice points near the grid, each with ``count`` numbers in [0, 1) of its own."""
    rows, columns = lattice(grid, pitch_um, margin_um)
    numbers = np.stack([uniform(seed, channel + index, rows, columns) for index in range(count)], axis=-1)
    for i, row in enumerate(rows[:, 0].tolist()):
        for j, column in enumerate(columns[0].tolist()):
            yield row, column, numbers[i, j].tolist()


def _draw_duct(seed: int, row: int, column: int, a: list[float], grid: Grid, canvas: Ducts) -> None:
    if a[0] > 0.8:
        return
    y, x = (row + 0.2 + 0.6 * a[1]) * DUCT_PITCH_UM, (column + 0.2 + 0.6 * a[2]) * DUCT_PITCH_UM
    phases, waves = (6.28 * a[3], 6.28 * a[4]), (0.10 * a[5], 0.06 * a[6])
    if a[7] < 0.38:
        radius = 24 + 26 * a[8]
        shape = Shape(y, x, radius, radius * (1.1 + 2.6 * a[9] ** 2), 3.14 * a[10], 0.8 * (a[11] - 0.5), phases, waves)
        _add_duct(shape, grid, canvas, wall_um=13 + 6 * a[8])
    elif a[7] < 0.68:
        _add_lobule(seed, row, column, y, x, 60 + 60 * a[8], grid, canvas)
    else:
        radius = 55 + 70 * a[8]
        shape = Shape(y, x, radius, radius * (1 + 0.7 * a[9]), 3.14 * a[10], 0.4 * (a[11] - 0.5), phases, waves)
        _add_tumour_duct(seed, shape, a[6], grid, canvas)


def _depth_around(shape: Shape, grid: Grid, reach_um: float) -> tuple[Window, Floats] | None:
    """The part of the grid within ``reach_um`` of the shape's centre, and the shape's depth there; None outside."""
    top = max(0, int((shape.y - reach_um - grid.top_um) / grid.pitch_um))
    left = max(0, int((shape.x - reach_um - grid.left_um) / grid.pitch_um))
    bottom = min(grid.height, int((shape.y + reach_um - grid.top_um) / grid.pitch_um) + 1)
    right = min(grid.width, int((shape.x + reach_um - grid.left_um) / grid.pitch_um) + 1)
    if bottom <= top or right <= left:
        return None
    y, x = grid.mesh()
    rows, columns = slice(top, bottom), slice(left, right)
    return (rows, columns), shape.depth(y[rows], x[:, columns])


def _lay_epithelium(
    shape: Shape, grid: Grid, canvas: Ducts, reach_um: float, *, benign: bool
) -> tuple[Window, Floats] | None:
    """Covers the shape with epithelium; returns its window of the grid, and the depth of the shape there."""
    found = _depth_around(shape, grid, reach_um)
    if found:
        window, depth = found
        canvas.benign[window][depth > -3] = benign
        np.maximum(canvas.epithelium[window], depth, out=canvas.epithelium[window])
    return found


def _add_duct(shape: Shape, grid: Grid, canvas: Ducts, wall_um: float) -> None:
    """A benign duct: a wall of two layers of cells around an open lumen."""
    reach_um = 1.5 * max(shape.radius_x, shape.radius_y) + 24
    if not (found := _lay_epithelium(shape, grid, canvas, reach_um, benign=True)):
        return
    window, depth = found
    np.maximum(canvas.lumen[window], depth - wall_um, out=canvas.lumen[window])


def _add_lobule(
    seed: int, row: int, column: int, y: float, x: float, radius_um: float, grid: Grid, canvas: Ducts
) -> None:
    """A terminal duct lobular unit: small acini, most of them open, close together in their own stroma."""
    pitch, count = 36.0, 4
    index = np.arange(-count, count + 1, dtype=np.int64)
    numbers = np.stack(
        [uniform(seed, 1200 + k, row * 64 + index[:, None], column * 64 + index[None, :]) for k in range(6)], axis=-1
    )
    for i, j in np.ndindex(2 * count + 1, 2 * count + 1):
        a = numbers[i, j].tolist()
        acinus_y = y + (i - count + 0.5 * (j % 2) + 0.35 * (a[0] - 0.5)) * pitch
        acinus_x = x + (j - count + 0.35 * (a[1] - 0.5)) * pitch
        if (acinus_y - y) ** 2 + (acinus_x - x) ** 2 > radius_um**2 or a[2] < 0.12:
            continue
        radius = 10 + 7 * a[3]
        shape = Shape(
            acinus_y, acinus_x, radius, radius * (1 + 0.5 * a[4]), 3.14 * a[5], 0, (6 * a[0], 6 * a[1]), (0.08, 0.04)
        )
        _add_duct(shape, grid, canvas, wall_um=9.0 + 5 * a[4])


def _add_tumour_duct(seed: int, shape: Shape, habit: float, grid: Grid, canvas: Ducts) -> None:
    """A duct filled with tumour: solid, cribriform (round holes) or with comedo necrosis."""
    reach_um = 1.6 * max(shape.radius_x, shape.radius_y) + 24
    if not (found := _lay_epithelium(shape, grid, canvas, reach_um, benign=False)):
        return
    window, depth = found
    if habit < 0.4:
        holes = 14 * (smooth(seed, 62, grid, 16)[window] - 1.0)
        np.maximum(canvas.lumen[window], np.minimum(holes, depth - 14), out=canvas.lumen[window])
    elif habit < 0.75:
        canvas.necrosis[window] = np.clip((depth - 42) / 6, canvas.necrosis[window], 1)


def draw_vessels(section: Section, grid: Grid) -> Floats:
    """Distance to the inner wall of the nearest capillary or small vessel, um, positive in its lumen."""
    depth = np.full((grid.height, grid.width), FAR_UM, np.float32)
    for row, column, a in _places(section.seed, 1900, grid, VESSEL_PITCH_UM, 90, 9):
        if a[0] > 0.55:
            continue
        radius = 3.2 + 4 * a[3] + 16 * a[3] ** 6
        shape = Shape(
            (row + a[1]) * VESSEL_PITCH_UM,
            (column + a[2]) * VESSEL_PITCH_UM,
            radius,
            radius * (1 + 3.5 * a[4] ** 3),
            3.14 * a[5],
            0.7 * (a[6] - 0.5),
            (6.28 * a[7], 6.28 * a[8]),
            (0.12, 0.05),
        )
        if found := _depth_around(shape, grid, shape.radius_x * 1.5 + 12):
            window, own = found
            np.maximum(depth[window], own, out=depth[window])
    return depth
