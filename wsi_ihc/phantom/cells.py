"""Positions and kinds of cells: a random packing without a visible lattice; the architecture decides the kinds."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.phantom.architecture import Maps
from wsi_ihc.phantom.noise import Floats, Grid, lattice, single, uniform
from wsi_ihc.phantom.section import Section

PITCH_UM = 4.6
"""Spacing of the candidates, one per lattice cell."""
ROUNDS = 3
REACH = 3
"""Candidates this many lattice cells apart still compete."""
MARGIN_UM = 40.0
"""Distance over which the packing at one place influences another: chains of neighbours are shorter."""

NONE, TUMOUR, DUCTAL, LYMPHOCYTE, FIBROBLAST, ENDOTHELIUM, RED_CELL, DEBRIS = range(8)


@dataclass(frozen=True, slots=True)
class Cells:
    """One entry per cell; positions and lengths in um, ``luck`` four independent numbers in [0, 1) each."""

    kind: NDArray[np.int8]
    y: Floats
    x: Floats
    radius: Floats
    """Half the distance it keeps from its neighbours."""
    angle: Floats
    """Direction of the long axis."""
    clone: Floats
    """The tumour's local habit, about N(0, 1)."""
    luck: Floats

    def of(self, *kinds: int) -> Cells:
        """The cells of some kinds."""
        return self.where(np.isin(self.kind, kinds))

    def where(self, keep: NDArray[np.bool_]) -> Cells:
        return Cells(
            self.kind[keep],
            self.y[keep],
            self.x[keep],
            self.radius[keep],
            self.angle[keep],
            self.clone[keep],
            self.luck[keep],
        )

    def __len__(self) -> int:
        return len(self.kind)


def place_cells(section: Section, maps: Maps, window: Grid) -> Cells:
    """All cells whose centres lie in ``window``; ``maps`` must reach ``MARGIN_UM`` beyond it."""
    rows, columns = lattice(window, PITCH_UM, MARGIN_UM)
    luck = np.stack([uniform(section.seed, 200 + index, rows, columns) for index in range(7)])
    y = ((rows + luck[0]) * np.float32(PITCH_UM)).astype(np.float32)
    x = ((columns + luck[1]) * np.float32(PITCH_UM)).astype(np.float32)
    at = Sampler(maps.grid, y, x)
    kind = _kinds(maps, at, luck)
    radius = _radii(section, kind, luck, at(maps.clone))
    kept = _pack(kind, y, x, radius, luck[2])
    kept &= (y >= window.top_um) & (y < window.top_um + window.height * window.pitch_um)
    kept &= (x >= window.left_um) & (x < window.left_um + window.width * window.pitch_um)
    return Cells(
        kind=kind[kept],
        y=y[kept],
        x=x[kept],
        radius=radius[kept],
        angle=_angles(maps, at, kind, luck)[kept],
        clone=at(maps.clone)[kept],
        luck=np.moveaxis(luck[3:], 0, -1)[kept],
    )


@dataclass(frozen=True, slots=True)
class Sampler:
    """Bilinear look-up of a map at points given in um."""

    grid: Grid
    y: Floats
    x: Floats

    def __call__(self, field: Floats) -> Floats:
        rows = (self.y - np.float32(self.grid.top_um)) / np.float32(self.grid.pitch_um)
        columns = (self.x - np.float32(self.grid.left_um)) / np.float32(self.grid.pitch_um)
        return single(cv2.remap(field, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def _kinds(maps: Maps, at: Sampler, luck: Floats) -> NDArray[np.int8]:
    """The kind of each candidate; later rules win."""
    epithelium, lumen, vessel, tissue = at(maps.epithelium), at(maps.lumen), at(maps.vessel), at(maps.tissue)
    kind = np.zeros(epithelium.shape, np.int8)
    stroma = (epithelium < -2.5) & (vessel < -3) & (at(maps.fat) < 3)
    kind[stroma & (luck[3] < 0.22 * at(maps.cellularity) ** 2)] = FIBROBLAST
    kind[stroma & (at(maps.cleft) < 0.3) & (luck[4] < at(maps.lymphocytes))] = LYMPHOCYTE
    kind[(np.abs(vessel + 1.2) < 1.4) & (luck[3] < 0.5)] = ENDOTHELIUM
    kind[(vessel > 1.8) & (luck[4] < 0.95)] = RED_CELL
    lined = (epithelium > 2.6) & (lumen < -2.8)
    benign = at(maps.benign) > 0.5
    kind[lined] = TUMOUR
    kind[lined & benign] = DUCTAL
    dead = at(maps.necrosis) > 0.5
    kind[dead] = NONE
    kind[dead & (luck[4] < 0.25)] = DEBRIS
    kind[tissue < 2] = NONE
    return kind


def _radii(section: Section, kind: NDArray[np.int8], luck: Floats, clone: Floats) -> Floats:
    """Half of the distance between cells, um. Tumour cells are larger and vary more with a higher HER2 score."""
    strength = section.strength
    spread = 0.45 + 0.65 * strength
    tumour = 4.45 + 0.8 * strength + spread * (0.35 * clone + 1.3 * (luck[5] - 0.5))
    base = np.array([0, 0, 3.6, 2.65, 5.2, 3.2, 2.05, 3.0], np.float32)[kind]
    return single(np.where(kind == TUMOUR, tumour, base * (0.76 + 0.46 * luck[5])))


def _angles(maps: Maps, at: Sampler, kind: NDArray[np.int8], luck: Floats) -> Floats:
    """Fibroblasts follow the collagen, endothelium its wall, epithelium leans towards the nearest surface."""
    fibre, wall, surface = (
        [at(slope) for slope in _direction(field)] for field in (maps.across, maps.vessel, maps.epithelium)
    )
    along_fibre = np.arctan2(fibre[1], -fibre[0])
    along_wall = np.arctan2(wall[1], -wall[0])
    inward = np.arctan2(surface[0], surface[1])
    random = 2 * np.pi * luck[6]
    lean = inward + 1.6 * (luck[6] - 0.5)
    angle = np.where(kind == FIBROBLAST, along_fibre + 0.5 * (luck[6] - 0.5), random)
    angle = np.where(kind == ENDOTHELIUM, along_wall, angle)
    near = (np.abs(at(maps.epithelium)) < 12) & ((kind == TUMOUR) | (kind == DUCTAL))
    return single(np.where(near, lean, angle))


def _direction(field: Floats) -> tuple[Floats, Floats]:
    """The gradient's (y, x) parts, smoothed over a few samples."""
    soft = cv2.blur(field, (3, 3))
    return single(cv2.Sobel(soft, cv2.CV_32F, 0, 1)), single(cv2.Sobel(soft, cv2.CV_32F, 1, 0))


def _pack(kind: NDArray[np.int8], y: Floats, x: Floats, radius: Floats, priority: Floats) -> NDArray[np.bool_]:
    """Hard-core thinning in rounds: the highest priority within reach stays, those too close to it go, others retry.

    Each round looks ``REACH`` lattice cells away, so the result far enough from the border does not depend on it.
    """
    alive = kind != NONE
    kept = np.zeros(alive.shape, np.bool_)
    # Fibroblasts fill what others leave.
    priority = priority + np.where(kind == FIBROBLAST, np.float32(0), np.float32(1))
    neighbours = [(i, j) for i in range(-REACH, REACH + 1) for j in range(-REACH, REACH + 1) if (i, j) != (0, 0)]
    crowded = {shift: _crowds(y, x, radius, shift) for shift in neighbours if shift > (0, 0)}
    for _ in range(ROUNDS):
        best = alive.copy()
        waiting = np.where(alive, priority, -1)
        for shift, close in crowded.items():
            here, there = _pair(alive.shape, shift)
            rivals = close & alive[here] & alive[there]
            wins = waiting[here] > waiting[there]
            best[here] &= ~(rivals & ~wins)
            best[there] &= ~(rivals & wins)
        kept |= best
        gone = best.copy()
        for shift, close in crowded.items():
            here, there = _pair(alive.shape, shift)
            gone[here] |= close & best[there]
            gone[there] |= close & best[here]
        alive &= ~gone
    return kept


def _pair(shape: tuple[int, ...], shift: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices that lay an array over itself, moved by ``shift`` (whose first part is not negative)."""
    i, j = shift
    height, width = shape
    here = slice(0, height - i), slice(max(0, -j), width - max(0, j))
    there = slice(i, height), slice(max(0, j), width - max(0, -j))
    return here, there


def _crowds(y: Floats, x: Floats, radius: Floats, shift: tuple[int, int]) -> NDArray[np.bool_]:
    """Where two candidates, ``shift`` apart on the lattice, are too close together."""
    here, there = _pair(y.shape, shift)
    distance = (y[here] - y[there]) ** 2 + (x[here] - x[there]) ** 2
    return np.asarray(distance < (radius[here] + radius[there]) ** 2, np.bool_)
