"""A section: the identity of the tissue, and its outline."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from wsi_ihc.measures.her2 import HER2_SCORES, Her2
from wsi_ihc.phantom.noise import Floats, Grid, single, smooth

EDGE_REACH_UM = 1.5 * (3 * 26 + 3 * 9 + 3 * 3.2) + 64
"""No tissue is farther from the smooth outline: the bound of the noise on the edge, and the step of a coarse check."""


@dataclass(frozen=True, slots=True)
class Lobe:
    """An elliptical piece of tissue, in um; the angle turns its first radius away from the x axis."""

    y: float
    x: float
    radius_y: float
    radius_x: float
    angle: float

    def depth(self, y: Floats, x: Floats) -> Floats:
        """Roughly the distance to the rim in um, positive inside."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        u = ((x - self.x) * cos + (y - self.y) * sin) / self.radius_x
        v = ((y - self.y) * cos - (x - self.x) * sin) / self.radius_y
        # A power above 2 gives the blunt corners of a trimmed block.
        rho = (np.abs(u) ** 2.6 + np.abs(v) ** 2.6) ** (1 / 2.6)
        return single((1 - rho) * min(self.radius_x, self.radius_y))


@dataclass(frozen=True, slots=True)
class Section:
    """A section of a tumour, without stain and scanner. With ``lobes`` None there is tissue everywhere."""

    seed: int
    her2: Her2
    lobes: tuple[Lobe, ...] | None = None
    strength: float = field(init=False)
    """The HER2 score as a number, 0 to 1."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", HER2_SCORES.index(self.her2) / 3)

    def tissue_depth(self, grid: Grid) -> Floats:
        """Distance to the glass in um, positive in tissue, clipped to what the drawing needs."""
        calm = 0.6 + 0.3 * smooth(self.seed, 6, grid, 190)
        ragged = (
            26 * smooth(self.seed, 2, grid, 75)
            + 9 * smooth(self.seed, 3, grid, 16)
            + 3.2 * smooth(self.seed, 4, grid, 5)
        )
        return np.clip(self._outline(grid) + calm * ragged, -60, 60)

    def _outline(self, grid: Grid) -> Floats:
        """Distance to the smooth outline in um, positive in tissue, before noise makes the edge rough."""
        if self.lobes is None:
            # Windows of the endless plane see mostly tissue, and the edge of the glass now and then.
            return 210 * (1.75 + smooth(self.seed, 5, grid, 420)) + 25 * smooth(self.seed, 1, grid, 260)
        y, x = grid.mesh()
        depth = np.full((grid.height, grid.width), -1e6, np.float32)
        for index, lobe in enumerate(self.lobes):
            size = min(lobe.radius_y, lobe.radius_x)
            rim = lobe.depth(y, x)
            if size > 100:
                # Large pieces are not ellipses: their outline wanders by a tenth of their size.
                rim += 0.11 * size * smooth(self.seed, 7 + index, grid, 0.45 * size) + 0.03 * size * smooth(
                    self.seed, 1, grid, 0.15 * size
                )
            np.maximum(depth, rim, out=depth)
        return depth

    def is_glass(self, grid: Grid) -> bool:
        """Whether a coarse check (steps of at most 64 um) excludes tissue on the grid."""
        return self.lobes is not None and float(self._outline(grid).max()) < -EDGE_REACH_UM


def slide_lobes(seed: int, height_um: float, width_um: float, share: float) -> tuple[Lobe, ...]:
    """One to four pieces of tissue and a few torn fragments that cover about ``share`` of a slide."""
    rng = np.random.default_rng([seed, 0x510DE])
    area = height_um * width_um * share
    elongation = float(np.clip(height_um / width_um, 0.5, 2.0)) * rng.uniform(0.85, 1.15)
    count = 1 if share > 0.3 else int(rng.integers(1, 4))
    lobes = []
    for index in range(count):
        # 3.4 is the area of the blunt ellipse over the product of its radii.
        radius = np.sqrt(area / count / 3.4)
        radius_y, radius_x = radius * np.sqrt(elongation), radius / np.sqrt(elongation)
        radius_y, radius_x = min(radius_y, 0.38 * height_um), min(radius_x, 0.38 * width_um)
        slot = (index + 0.5) / count
        y = height_um * (0.5 + rng.uniform(-0.02, 0.02)) if count == 1 else height_um * slot
        x = width_um * (0.5 + rng.uniform(-0.02, 0.02)) if count == 1 else width_um * rng.uniform(0.35, 0.65)
        lobes.append(Lobe(y, x, radius_y, radius_x, rng.uniform(-0.12, 0.12)))
        lobes += _fragments(rng, lobes[-1])
    return tuple(lobes)


def _fragments(rng: np.random.Generator, piece: Lobe) -> list[Lobe]:
    """Small fragments that came off the edge of a piece."""
    fragments = []
    for _ in range(int(rng.integers(3, 7))):
        angle = rng.uniform(0, 2 * np.pi)
        reach = rng.uniform(1.02, 1.12)
        size = rng.uniform(15, 60)
        fragments.append(
            Lobe(
                piece.y + reach * piece.radius_y * np.sin(angle),
                piece.x + reach * piece.radius_x * np.cos(angle),
                size * rng.uniform(0.4, 1.0),
                size * rng.uniform(1.0, 2.5),
                rng.uniform(0, np.pi),
            )
        )
    return fragments
