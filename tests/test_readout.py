"""Known answers: images painted with a known amount of DAB."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsi_ihc.measures.dyes import DAB, HAEMATOXYLIN
from wsi_ihc.measures.readout import CUTS, Readout, read_dab

UNITS = [np.array(dye) / np.linalg.norm(dye) for dye in (HAEMATOXYLIN, DAB)]


def painted(dab: NDArray[np.float64], haematoxylin: float = 0.1) -> NDArray[np.uint8]:
    """Pixels of those optical densities of DAB, (h, w, 3)."""
    density = haematoxylin * UNITS[0] + dab[..., None] * UNITS[1]
    return np.asarray((255 * 10**-density).round(), np.uint8)


@pytest.mark.parametrize(("dab", "score"), [(0.0, 0), (0.1, 0), (0.3, 100), (0.5, 200), (0.8, 300), (1.2, 300)])
def test_one_density_has_the_score_of_its_grade(dab: float, score: float) -> None:
    assert read_dab(painted(np.full((8, 8), dab))).score == score


def test_shares_weigh_the_score() -> None:
    found = read_dab(painted(np.repeat([0.0, 0.3, 0.5, 0.9], [40, 30, 20, 10])[None]))
    assert found.counts == (40, 30, 20, 10)
    assert found.score == pytest.approx(30 + 2 * 20 + 3 * 10)
    assert found.positive_share == pytest.approx(0.6)


def test_only_tissue_counts() -> None:
    image = painted(np.array([[0.9, 0.9, 0.0, 0.3]]))
    assert read_dab(image, np.array([[True, False, True, False]])).counts == (1, 0, 0, 1)
    nothing = read_dab(image, np.zeros((1, 4), bool))
    assert nothing.pixels == 0
    assert np.isnan(nothing.score)


def test_haematoxylin_alone_is_negative() -> None:
    assert read_dab(painted(np.zeros((4, 4)), haematoxylin=0.9)).positive_share == 0


def test_the_histogram_counts_every_tissue_pixel_near_its_density() -> None:
    found = read_dab(painted(np.full((5, 5), 0.5)))
    assert found.histogram.sum() == found.pixels == 25
    assert abs(int(np.argmax(found.histogram)) * 2 / 256 - 0.5) < 0.02


@given(st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_parts_add_up_to_the_whole(cut: int, seed: int) -> None:
    image = painted(np.random.default_rng(seed).uniform(0, 1, (8, 8)))
    whole, parts = read_dab(image), read_dab(image[:cut]) + read_dab(image[cut:])
    assert parts.counts == whole.counts
    assert (parts.histogram == whole.histogram).all()
    assert (Readout() + whole).score == whole.score


def test_the_cuts_are_those_that_the_documentation_names() -> None:
    assert CUTS == (0.2, 0.4, 0.6)
