"""Rules that clean the truth of HEMIT, and the brightfield look that it is given."""

from __future__ import annotations

import numpy as np
import pytest

from wsi_ihc.measures.stain import unmix
from wsi_ihc.training.hemit import (
    MPP,
    Field,
    Image,
    clean,
    field_level,
    has_seam,
    is_ragged,
    is_raised,
    keep_islands,
    paint,
    read_channels,
    region_levels,
)
from wsi_ihc.training.restain import GLASS

SIDE = 256


def pink() -> Image:
    """H&E of tissue without a nucleus."""
    image = np.full((SIDE, SIDE, 3), (225, 150, 200), np.uint8)
    image[:, :8] = 255
    return image


def field(panck: np.ndarray, cd3: float | np.ndarray = 0.0, he: Image | None = None) -> Field:
    return Field(pink() if he is None else he, panck.astype(np.float32), np.zeros((SIDE, SIDE), np.float32) + cd3)


def nest(strength: float, background: float = 0.0, radius: int = 60) -> np.ndarray:
    """A disc of epithelium in the middle, with soft edges."""
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    inside = np.clip((radius - np.hypot(rows, columns)) / 4, 0, 1)
    return background + (strength - background) * inside


def test_the_channels_are_what_the_encoding_says() -> None:
    dapi, panck, cd3 = 40.0, 100.0, 30.0
    multiplex = np.full((2, 2, 3), (255 - dapi - panck, 255 - cd3 - panck, 255 - panck), np.uint8)
    read = read_channels(multiplex, multiplex)
    assert read.panck[0, 0] == panck
    assert read.cd3[0, 0] == cd3


@pytest.mark.parametrize("gain", [0.6, 1.0, 1.6])
def test_the_strength_of_a_field_does_not_depend_on_how_it_was_stretched(gain: float) -> None:
    fields = [field(nest(120.0)), field(nest(120.0)), field(nest(120.0 * gain))]
    threshold, level = region_levels(fields)
    signal = clean(fields[2], threshold, level).signal
    assert signal[SIDE // 2, SIDE // 2] == pytest.approx(1.0, abs=0.05)


def test_a_field_with_little_epithelium_takes_the_level_of_its_region() -> None:
    threshold, level = region_levels([field(nest(120.0)), field(nest(240.0, radius=8))])
    assert field_level(field(nest(240.0, radius=8)), threshold, level) == level


def test_a_field_stretched_over_its_background_shows_nothing() -> None:
    noise = np.random.default_rng(0).uniform(60, 140, (SIDE, SIDE))
    assert is_raised(field(noise))
    cleaned = clean(field(noise), 40.0, 120.0)
    assert cleaned.verdict == "flat"
    assert not cleaned.signal.any()


def test_a_raised_field_in_which_something_stands_out_is_doubtful() -> None:
    assert clean(field(nest(200.0, background=20.0)), 40.0, 120.0).verdict == "raised"


def test_small_islands_and_lymphoid_ones_go_and_large_ones_stay() -> None:
    positive = np.zeros((SIDE, SIDE), bool)
    positive[20:100, 20:100] = positive[20:100, 140:220] = positive[200:210, 50:60] = True
    cd3 = np.zeros_like(positive)
    cd3[:, 128:] = True
    kept = keep_islands(positive, cd3)
    assert kept[60, 60]
    assert not kept[60, 180]
    assert not kept[205, 55]


def test_glass_is_never_positive() -> None:
    glass = np.full((SIDE, SIDE, 3), 252, np.uint8)
    cleaned = clean(field(nest(150.0), he=glass), 40.0, 150.0)
    assert not cleaned.epithelium.any()
    assert cleaned.signal.max() == 0


def test_nuclei_belong_to_epithelium_though_they_hold_no_cytokeratin() -> None:
    panck = nest(150.0)
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    nucleus = np.hypot(rows, columns) < 2.5 / MPP
    panck[nucleus] = 0
    cleaned = clean(field(panck), 40.0, 150.0)
    assert cleaned.epithelium[nucleus].all()
    assert cleaned.signal[SIDE // 2, SIDE // 2] < 0.05


def test_ragged_truth_is_told_from_smooth() -> None:
    rough = np.where(np.random.default_rng(1).random((SIDE, SIDE)) < 0.5, nest(150.0, radius=100), 0)
    assert is_ragged(rough.astype(np.float32))
    assert not is_ragged(nest(150.0).astype(np.float32))


def test_a_seam_is_found_and_an_edge_of_tissue_is_none() -> None:
    textured = np.random.default_rng(2).integers(150, 180, (SIDE, SIDE, 3), np.uint8)
    assert not has_seam(textured)
    joined = textured.copy()
    joined[:, 100:] -= 120
    assert has_seam(joined)


def test_paint_is_beer_lambert_on_glass_of_the_usual_grey() -> None:
    glass = np.full((SIDE, SIDE, 3), 255, np.uint8)
    bare = paint(glass, np.zeros((SIDE, SIDE), np.float32))
    assert bare.shape == (SIDE // 2, SIDE // 2, 3)
    np.testing.assert_array_equal(bare, GLASS)
    _, once = unmix(paint(glass, np.full((SIDE, SIDE), 0.4, np.float32)), "h-dab")
    _, twice = unmix(paint(glass, np.full((SIDE, SIDE), 0.8, np.float32)), "h-dab")
    _, none = unmix(bare, "h-dab")
    assert (twice - none).mean() == pytest.approx(2 * (once - none).mean(), rel=0.03)
