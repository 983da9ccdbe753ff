"""The map of a tissue: where epithelium, lumen, stroma, fat, vessels and lymphocytes lie, at 2 um per sample."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.phantom.ducts import Ducts, draw_ducts, draw_vessels
from wsi_ihc.phantom.noise import Floats, Grid, single, smooth
from wsi_ihc.phantom.section import Section

REACH_UM = 44.0
"""Distances are clipped at this value: a window needs no wider surroundings to draw the same map."""

SMOOTHING_UM = 2.0
"""Sigma that smooths the steps of a distance: one sample of the usual map."""


@dataclass(frozen=True, slots=True)
class Maps:
    """Fields over one grid; distances in um, positive inside, clipped to ``REACH_UM``."""

    grid: Grid
    tissue: Floats
    """Distance to the glass."""
    epithelium: Floats
    """Distance to the surface of nests and ducts."""
    lumen: Floats
    """Distance to the wall of a lumen, positive in the lumen."""
    benign: Floats
    """1 in ducts and lobules that are no tumour, else 0."""
    fat: Floats
    """Distance-like depth in fat."""
    hyaline: Floats
    """1 where collagen is hyaline and shows no fibres."""
    looseness: Floats
    """0 where collagen is dense, 1 where it is a loose web."""
    vessel: Floats
    """Distance to the inner wall of a vessel, positive in its lumen."""
    lymphocytes: Floats
    """Chance of a lymphocyte, 0 to 1."""
    cellularity: Floats
    """Chance of a fibroblast, 0 to 1."""
    cleft: Floats
    """Retraction: 1 where epithelium has shrunk away from its stroma."""
    necrosis: Floats
    """1 in the necrotic centre of a large duct."""
    thickness: Floats
    """Relative thickness of the section, about 1."""
    clone: Floats
    """Smooth noise by which tumour cells differ from place to place: size, tint, HER2."""
    across: Floats
    """Coordinate across the collagen fibres, um."""
    along: Floats
    """Coordinate along the collagen fibres, um."""


def draw_maps(section: Section, grid: Grid) -> Maps:
    """The architecture on ``grid``; distances are exact at least ``REACH_UM`` away from its border."""
    seed = section.seed
    tissue = section.tissue_depth(grid)
    ducts = draw_ducts(section, grid)
    zone = 0.85 * smooth(seed, 10, grid, 480) + 0.45 * smooth(seed, 11, grid, 170)
    nests = _nests(seed, grid, zone, ducts)
    epithelium = signed_distance(np.maximum(nests, ducts.epithelium) > 0, grid)
    lumen = signed_distance((ducts.lumen > 0) | (_slits(seed, grid) & (epithelium > 8) & (nests > 0)), grid)
    vessel = np.where(epithelium < -4, draw_vessels(section, grid), -REACH_UM).astype(np.float32)
    inflamed = smooth(seed, 20, grid, 150) + 0.5 * smooth(seed, 21, grid, 40)
    lymphocytes = np.clip((inflamed - 0.95) * 1.2, 0, 0.9) * np.clip((40 + epithelium) / 30, 0.15, 1)
    fat = np.minimum(_fat(seed, grid, zone, epithelium) - 60 * lymphocytes, -vessel - 7)
    cellular = smooth(seed, 22, grid, 130)
    retraction = smooth(seed, 23, grid, 55) + 0.6 * smooth(seed, 24, grid, 17)
    # Carcinoma shrinks away from its stroma more than normal ducts do.
    cleft = np.clip((retraction - 0.85 - 0.7 * ducts.benign) * 2.5, 0, 1) * _band(epithelium, -2.4, 3.0)
    across, along = _fibres(seed, grid, epithelium)
    return Maps(
        grid=grid,
        tissue=tissue,
        epithelium=epithelium,
        lumen=lumen,
        benign=ducts.benign,
        fat=fat.astype(np.float32),
        hyaline=np.clip(0.35 + 0.5 * smooth(seed, 47, grid, 60), 0, 0.9),
        looseness=_looseness(seed, grid, epithelium, ducts),
        vessel=vessel,
        lymphocytes=lymphocytes.astype(np.float32),
        cellularity=np.clip(0.5 + 0.4 * cellular, 0.05, 1.3).astype(np.float32),
        cleft=cleft.astype(np.float32),
        necrosis=ducts.necrosis,
        thickness=1 + 0.06 * smooth(seed, 25, grid, 210) + 0.04 * smooth(seed, 26, grid, 45),
        clone=0.8 * smooth(seed, 27, grid, 120) + 0.6 * smooth(seed, 28, grid, 35),
        across=across,
        along=along,
    )


def signed_distance(inside: NDArray[np.bool_], grid: Grid) -> Floats:
    """Distance to the border of a mask in um, positive inside, smoothed and clipped to ``REACH_UM``."""
    mask = inside.astype(np.uint8)
    outward = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    inward = cv2.distanceTransform(1 - mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Each transform counts from the nearest sample of the other side: half a sample too far.
    distance = np.clip((outward - inward - mask + 0.5) * grid.pitch_um, -REACH_UM, REACH_UM)
    return single(cv2.GaussianBlur(distance, (0, 0), SMOOTHING_UM / grid.pitch_um))


def _band(distance: Floats, centre: float, width: float) -> Floats:
    return single(np.clip(1.5 - np.abs(distance - centre) * (1.5 / width), 0, 1))


def _nests(seed: int, grid: Grid, zone: Floats, ducts: Ducts) -> Floats:
    """Carcinoma, positive inside: islands and cords whose share of the field follows ``zone``."""
    shift_y = 22 * smooth(seed, 30, grid, 90) + 7 * smooth(seed, 31, grid, 26)
    shift_x = 22 * smooth(seed, 32, grid, 90) + 7 * smooth(seed, 33, grid, 26)
    wide = _widened(grid)
    islands = smooth(seed, 34, wide, 58) + 0.55 * smooth(seed, 35, wide, 24) + 0.22 * smooth(seed, 36, wide, 9)
    ridges = smooth(seed, 37, wide, 46) + 0.3 * smooth(seed, 38, wide, 15)
    kind = 0.3 * np.clip(smooth(seed, 39, wide, 210), -1, 1)
    # Cords run where a noise field crosses zero; islands are its hills.
    cords = 0.34 - np.abs(ridges) + kind
    field = np.maximum(islands - 0.45 - kind, cords * 1.3 - 0.25)
    y, x = grid.mesh()
    pitch = np.float32(wide.pitch_um)
    field = cv2.remap(
        field.astype(np.float32),
        (x - np.float32(wide.left_um) + shift_x) / pitch,
        (y - np.float32(wide.top_um) + shift_y) / pitch,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    field += 0.75 * np.clip(zone + 0.14, -1.8, 0.9)
    return np.where(ducts.epithelium > -18, -1, field).astype(np.float32)


def _widened(grid: Grid) -> Grid:
    """The grid at half its density, 90 um wider on every side: as far as the warp of the nests reaches."""
    margin = int(np.ceil(90 / grid.pitch_um / 2)) * 2
    return Grid(
        grid.top_um - margin * grid.pitch_um,
        grid.left_um - margin * grid.pitch_um,
        2 * grid.pitch_um,
        grid.height // 2 + margin + 1,
        grid.width // 2 + margin + 1,
    )


def _slits(seed: int, grid: Grid) -> NDArray[np.bool_]:
    """Small gland-like lumens and cracks inside nests."""
    return (smooth(seed, 40, grid, 13) + 0.9 * smooth(seed, 41, grid, 140)) > 2.3


def _fat(seed: int, grid: Grid, zone: Floats, epithelium: Floats) -> Floats:
    field = 60 * (smooth(seed, 42, grid, 240) - 0.9 * zone - 0.8) + 22 * smooth(seed, 43, grid, 60)
    return np.minimum(np.clip(field, -REACH_UM, REACH_UM), -epithelium - 12).astype(np.float32)


def _looseness(seed: int, grid: Grid, epithelium: Floats, ducts: Ducts) -> Floats:
    """Loose around nests here and there, always around benign ducts."""
    field = 0.25 + 0.5 * smooth(seed, 44, grid, 85) + 0.3 * smooth(seed, 45, grid, 28)
    near = np.clip(1 + epithelium / 28, 0, 1)
    return np.clip(field + 0.35 * near * (smooth(seed, 46, grid, 100) > 0) + 0.5 * near * ducts.benign, 0, 1).astype(
        np.float32
    )


def _fibres(seed: int, grid: Grid, epithelium: Floats) -> tuple[Floats, Floats]:
    """Coordinates that follow the collagen: a tilted plane, warped at every scale, wrapped around the nests."""
    angle = float(np.random.default_rng([seed, 0xF1B]).uniform(0, np.pi))
    y, x = grid.mesh()
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    swirl = 120 * smooth(seed, 50, grid, 230) + 30 * smooth(seed, 51, grid, 70)
    crimp = 7.0 * smooth(seed, 52, grid, 19) + 2.2 * smooth(seed, 53, grid, 7)
    across = x * sin + y * cos + swirl + crimp - 1.4 * np.clip(epithelium, -26, 0)
    along = x * cos - y * sin + 60 * smooth(seed, 54, grid, 230) + 14 * smooth(seed, 55, grid, 60)
    return across.astype(np.float32), along.astype(np.float32)
