"""Synthetic fields at 8 um/px whose truth is known, painted as stains absorb light."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from wsi_ihc.config import TissueSettings
from wsi_ihc.tissue import tissue_from_thumbnail
from wsi_ihc.tissue.segmentation import glass_colour

MPP = 8.0
GLASS = (243, 243, 242)
HAEMATOXYLIN, EOSIN, DAB = (0.65, 0.70, 0.29), (0.07, 0.99, 0.40), (0.27, 0.57, 0.78)
INKS = {
    "black": (20, 20, 24),
    "blue": (40, 110, 200),
    "navy": (25, 35, 110),
    "green": (25, 130, 95),
    "red": (205, 40, 60),
}

Rgb = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def field(side: int = 160, glass: tuple[int, int, int] = GLASS) -> Rgb:
    noise = np.random.default_rng(1).normal(0, 1, (side, side, 3))
    return np.clip(np.array(glass) + noise, 0, 255).astype(np.uint8)


def disc(side: int, row: float, column: float, radius: float) -> Mask:
    rows, columns = np.ogrid[:side, :side]
    return np.asarray((rows - row) ** 2 + (columns - column) ** 2 <= radius**2)


def stain(rgb: Rgb, where: Mask, vector: tuple[float, float, float], density: float, grain: float = 0.3) -> Rgb:
    """Beer-Lambert: cells make the density vary by ``grain`` of itself from pixel to pixel."""
    amount = density * np.random.default_rng(2).uniform(1 - grain, 1 + grain, where.shape) * where
    return np.asarray(rgb * np.exp(-amount[..., None] * np.array(vector)), np.uint8)


def ink(rgb: Rgb, where: Mask, name: str) -> Rgb:
    """A stroke with a soft edge, over whatever lies below it."""
    alpha = cv2.GaussianBlur(where.astype(np.float32), (0, 0), 1.0)[..., None]
    return np.asarray(rgb * (1 - alpha + alpha * np.array(INKS[name]) / 243), np.uint8)


def dice(found: Mask, truth: Mask) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def find(rgb: Rgb, mpp: float = MPP, **settings: Any) -> Mask:
    return tissue_from_thumbnail(rgb, mpp, TissueSettings(**settings))


@pytest.mark.parametrize(
    ("vector", "density"),
    [(EOSIN, 0.08), (EOSIN, 0.6), (HAEMATOXYLIN, 0.2), (HAEMATOXYLIN, 1.2), (DAB, 0.25), (DAB, 1.5)],
    ids=["palest eosin", "eosin", "pale nuclei", "dense nuclei", "pale DAB", "strong DAB"],
)
def test_tissue_of_every_stain_and_strength_is_found(vector: tuple[float, float, float], density: float) -> None:
    truth = disc(160, 80, 80, 40)
    assert dice(find(stain(field(), truth, vector, density)), truth) > 0.95


@pytest.mark.parametrize("glass", [(243, 243, 242), (200, 200, 200), (240, 234, 205), (228, 223, 229), (225, 232, 240)])
def test_the_tint_of_the_glass_drops_out(glass: tuple[int, int, int]) -> None:
    truth = disc(160, 80, 80, 40)
    assert dice(find(stain(field(glass=glass), truth, EOSIN, 0.15)), truth) > 0.95


@pytest.mark.parametrize("glass", [(255, 255, 255), (243, 243, 242), (200, 200, 200), (240, 234, 205), (0, 0, 0)])
@pytest.mark.parametrize("side", [1, 3, 160])
def test_a_blank_slide_has_no_tissue(glass: tuple[int, int, int], side: int) -> None:
    assert not find(field(side, glass)).any()


@pytest.mark.parametrize(
    ("vector", "density"),
    [(EOSIN, 0.4), (EOSIN, 0.8), (HAEMATOXYLIN, 0.6), (DAB, 0.8)],
    ids=["pale", "pink", "blue", "DAB"],
)
def test_a_field_without_glass_is_not_split_in_halves(vector: tuple[float, float, float], density: float) -> None:
    everything = np.ones((64, 64), bool)
    paler_half = stain(field(64), everything, vector, density)
    both = stain(paler_half, np.arange(64)[None] < np.full((64, 1), 32), vector, density)
    assert find(both).all()


def test_fat_is_kept_with_its_lumina() -> None:
    truth = disc(160, 80, 80, 50)
    rows, columns = np.indices(truth.shape)
    membranes = truth & ((rows % 9 == 0) | ((columns + 4 * (rows // 9 % 2)) % 9 == 0))
    assert dice(find(stain(field(), membranes, EOSIN, 0.12)), truth) > 0.9


def test_large_lumina_stay_glass() -> None:
    ring = disc(160, 80, 80, 60) & ~disc(160, 80, 80, 30)
    assert dice(find(stain(field(), ring, EOSIN, 0.5)), ring) > 0.95


@pytest.mark.parametrize("name", INKS)
def test_pen_on_bare_glass_is_left_out(name: str) -> None:
    stroke = np.zeros((160, 160), bool)
    stroke[30:90, 20:140] = True
    stroke[45:75, 50:110] = False
    assert not find(ink(field(), stroke, name)).any()


@pytest.mark.parametrize("name", INKS)
def test_tissue_under_pen_is_kept_and_pen_beside_it_is_not(name: str) -> None:
    truth = disc(160, 80, 70, 50)
    stroke = np.zeros((160, 160), bool)
    stroke[70:95] = True
    found = find(ink(stain(field(), truth, EOSIN, 0.5), stroke, name))
    assert found[truth].mean() > 0.97
    assert found[:, 135:].mean() < 0.02


def test_black_borders_coverslip_edges_dust_and_bubbles_are_left_out() -> None:
    rgb = field()
    truth = disc(160, 90, 60, 30)
    rgb = stain(rgb, truth, EOSIN, 0.4)
    rgb[:, 140:] = 0
    rgb[:12] = (190, 190, 191)
    cv2.line(rgb, (0, 20), (139, 24), (120, 121, 122), 2)
    cv2.circle(rgb, (115, 60), 14, (90, 90, 92), 1)
    for row in range(130, 158, 8):
        rgb[row : row + 2, 100:103] = (90, 70, 80)
    assert dice(find(rgb), truth) > 0.95


def test_specks_smaller_than_min_area_are_dust() -> None:
    speck = disc(160, 40, 40, 6)
    rgb = stain(field(), speck, EOSIN, 0.5)
    assert find(rgb, min_area_um2=5000.0).any()
    assert not find(rgb, min_area_um2=20_000.0).any()


def test_lengths_follow_the_resolution() -> None:
    truth = disc(160, 80, 80, 40)
    rgb = stain(field(), truth, EOSIN, 0.3)
    for mpp in (2.0, 8.0, 40.0):
        assert dice(find(rgb, mpp), truth) > 0.95


def test_glass_is_the_brightest_large_peak_not_the_largest() -> None:
    rgb = stain(field(), np.indices((160, 160))[0] < 130, (0.5, 0.52, 0.49), 0.2, grain=0)
    colour = glass_colour(rgb)
    assert colour is not None
    assert np.allclose(colour, GLASS, atol=2)
