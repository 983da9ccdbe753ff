from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.tissue import TissueMask


@st.composite
def masks(draw: st.DrawFn) -> TissueMask:
    shape = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    downsample = draw(st.floats(0.6, 9.0))
    pixels = draw(arrays(bool, shape))
    # As a thumbnail rounds: the plane may end a little inside or outside the last mask pixel.
    size = [max(1, round(side * downsample) + draw(st.integers(-1, 1))) for side in shape]
    return TissueMask(pixels, downsample, Size(*size))


def regions() -> st.SearchStrategy[Region]:
    place, side = st.integers(-12, 60), st.integers(0, 30)
    return st.builds(Region, place, place, side, side)


def opacity(mask: TissueMask, region: Region) -> np.ndarray:
    alpha = mask.coverage(region)
    return np.ones(region.size, np.float32) if alpha is None else alpha


@given(masks(), regions())
def test_a_pixel_does_not_depend_on_the_region_it_is_asked_in(mask: TissueMask, region: Region) -> None:
    whole = Region(-12, -12, 102, 102)
    assert np.array_equal(opacity(mask, region), opacity(mask, whole)[region.relative_to(whole).slices])


@given(masks(), regions())
def test_coverage_is_none_where_it_is_one_everywhere(mask: TissueMask, region: Region) -> None:
    alpha = mask.coverage(region)
    if alpha is not None:
        assert alpha.shape == region.size
        assert alpha.dtype == np.float32
        assert alpha.size == 0 or alpha.min() < 1
        assert ((alpha >= 0) & (alpha <= 1)).all()


@given(masks(), regions())
def test_any_says_whether_there_is_coverage(mask: TissueMask, region: Region) -> None:
    assert mask.any(region) == bool((opacity(mask, region) > 0).any())


@given(masks())
def test_tissue_is_opaque(mask: TissueMask) -> None:
    alpha = opacity(mask, Region(0, 0, *mask.size))
    rows, columns = (
        np.minimum(((np.arange(side) + 0.5) / mask.downsample).astype(int), count - 1)
        for side, count in zip(mask.size, mask.pixels.shape, strict=True)
    )
    assert (alpha[mask.pixels[np.ix_(rows, columns)]] == 1).all()


@given(masks(), regions())
def test_fraction_is_the_share_of_area(mask: TissueMask, region: Region) -> None:
    fine = 20
    places = [
        (np.arange(start * fine, stop * fine) + 0.5) / fine
        for start, stop in ((region.top, region.bottom), (region.left, region.right))
    ]
    inside = [(place >= 0) & (place < side) for place, side in zip(places, mask.size, strict=True)]
    indices = [
        np.clip((place / mask.downsample).astype(int), 0, count - 1)
        for place, count in zip(places, mask.pixels.shape, strict=True)
    ]
    tissue = mask.pixels[np.ix_(*indices)] & np.outer(*inside)
    expected = tissue.mean() if tissue.size else 0.0
    assert mask.fraction(region) == pytest.approx(expected, abs=0.12)


def test_coverage_falls_smoothly_over_two_mask_pixels() -> None:
    pixels = np.zeros((20, 20), bool)
    pixels[:, :8] = True
    alpha = TissueMask(pixels, 8.0, Size(160, 160)).coverage(Region(80, 0, 1, 160))
    assert alpha is not None
    line = alpha[0]
    assert (line[:68] == 1).all()
    assert (line[92:] == 0).all()
    assert (np.diff(line) <= 0).all()
    assert np.abs(np.diff(line)).max() < 0.07


def test_a_slide_of_tissue_needs_no_blending() -> None:
    mask = TissueMask(np.ones((1, 1), bool), 300.0, Size(200, 300))
    assert mask.coverage(Region(10, 10, 64, 64)) is None
    assert mask.fraction(Region(0, 0, 200, 300)) == 1


def test_no_tissue_no_coverage() -> None:
    mask = TissueMask(np.zeros((4, 4), bool), 16.0, Size(64, 64))
    assert not mask.any(Region(0, 0, 64, 64))
    assert mask.fraction(Region(0, 0, 64, 64)) == 0


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (17, 64)])
def test_another_process_gets_the_same_mask(shape: tuple[int, int]) -> None:
    mask = TissueMask(np.random.default_rng(1).random(shape) < 0.5, 16.5, Size(1000, 900))
    data = pickle.dumps(mask)
    assert len(data) < 500 + mask.pixels.size // 8
    same = pickle.loads(data)
    assert same.pixels.dtype == bool
    np.testing.assert_array_equal(same.pixels, mask.pixels)
    assert (same.downsample, same.size) == (mask.downsample, mask.size)
