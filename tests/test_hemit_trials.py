"""The comparison of losses on real pixels: its moved pairs and its table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from trials.judging.hemit import BINS, auroc, best_threshold, dice_at
from trials.losses.hemit import CUT_PX, SHIFT_PX, moved, table, trainings


@pytest.mark.parametrize("name", ["a_1", "b_2", "c_3", "d_4"])
def test_a_moved_pair_shows_the_same_tissue_as_far_apart_as_it_says(name: str) -> None:
    field = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    he, ihc = moved(field, field, name)
    assert he.shape == ihc.shape == (96 - CUT_PX, 96 - CUT_PX, 3)
    np.testing.assert_array_equal(moved(field, field, name)[1], ihc)
    # Where does the corner of the IHC lie in the field, and where that of the H&E?
    corners = [np.argwhere((field == side[0, 0]).all(axis=2))[0] for side in (he, ihc)]
    assert SHIFT_PX[0] - 1 <= np.hypot(*(corners[1] - corners[0])) <= SHIFT_PX[1] + 1


def test_every_system_is_trained_once_before_any_is_trained_twice() -> None:
    order = list(trainings(3))
    assert len(order) == len(set(order)) == 24
    assert {seed for _, _, seed in order[:8]} == {0}


def test_the_table_has_a_row_for_each_system_that_was_judged(tmp_path: Path) -> None:
    for seed, value in enumerate((0.5, 0.7)):
        entry = {"loss": "pyramid", "data": "moved", "seed": seed, "figures": {"DAB r": {"value": value}}}
        (tmp_path / f"{seed}.json").write_text(json.dumps(entry))
    assert table(sorted(tmp_path.glob("*.json"))).splitlines()[2:] == ["| moved | pyramid | 0.600 (0.500, 0.700) |"]
    assert table([]) == ""


def test_the_curve_is_that_of_its_scores() -> None:
    random = np.random.default_rng(1)
    outside, inside = random.integers(0, 300, 200), random.integers(100, 400, 150)
    counts = np.stack([np.bincount(scores, minlength=BINS) for scores in (outside, inside)])
    wins = (inside[:, None] > outside).mean() + (inside[:, None] == outside).mean() / 2
    assert auroc(counts) == pytest.approx(wins)
    plain = [2 * (inside >= t).sum() / (150 + (inside >= t).sum() + (outside >= t).sum()) for t in range(BINS)]
    assert dice_at(counts, best_threshold(counts)) == pytest.approx(max(plain))
