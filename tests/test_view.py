"""One working resolution over any slide, and pixels that do not know the window they are read in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsi_ihc.errors import ResolutionError
from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.slides import MemorySlide, SlideView, resample
from wsi_ihc.slides.resample import UNIT, reduce, reduce_exactly, source_span, weights


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def area_mean(pixels: NDArray[np.uint8], size: Size, scale: float) -> NDArray[np.float64]:
    """The definition, slowly: the mean of the source under each working pixel, by overlap."""

    def overlaps(count: int, length: int) -> NDArray[np.float64]:
        low = np.arange(count)[:, None] * scale
        source = np.arange(length)
        return (np.minimum(low + scale, source + 1) - np.maximum(low, source)).clip(0) / scale

    down, across = overlaps(size.height, pixels.shape[0]), overlaps(size.width, pixels.shape[1])
    return np.einsum("ih,hwc,jw->ijc", down, pixels.astype(float), across)


scales = st.one_of(st.sampled_from([2.0, 3.0, 4.0]), st.floats(1.05, 9.0))
sides = st.integers(1, 40)


@given(scale=scales, height=sides, width=sides, seed=st.integers(0, 5), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_pixel_is_the_same_in_every_window(
    scale: float, height: int, width: int, seed: int, data: st.DataObject
) -> None:
    view = SlideView.at(MemorySlide(noise(height, width, seed), mpp=0.25), 0.25 * scale, tolerance=0.01)
    whole = view.read(Region(0, 0, *view.size))
    top = data.draw(st.integers(-3, view.size.height))
    left = data.draw(st.integers(-3, view.size.width))
    window = Region(top, left, data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12)))
    padded = np.pad(whole, ((20, 20), (20, 20), (0, 0)), constant_values=255)
    expected = padded[window.top + 20 : window.bottom + 20, window.left + 20 : window.right + 20]
    expected = np.pad(
        expected,
        ((0, window.height - expected.shape[0]), (0, window.width - expected.shape[1]), (0, 0)),
        constant_values=255,
    )
    np.testing.assert_array_equal(view.read(window), expected)


@given(scale=scales, height=st.integers(12, 40), width=st.integers(12, 40))
@settings(max_examples=40, deadline=None)
def test_resampling_is_the_mean_by_area(scale: float, height: int, width: int) -> None:
    pixels = noise(height, width)
    view = SlideView.at(MemorySlide(pixels, mpp=0.25), 0.25 * scale, tolerance=0.01)
    expected = area_mean(pixels, view.size, view.scale)
    assert np.abs(view.read(Region(0, 0, *view.size)) - expected).max() < 0.75  # half a level is rounding itself


@given(start=st.integers(0, 10_000_000), count=st.integers(1, 20), scale=st.floats(1.01, 100))
@settings(max_examples=100, deadline=None)
def test_weights_are_whole_and_add_up(start: int, count: int, scale: float) -> None:
    table = weights(start, count, scale).toarray()
    assert table.shape == (count, source_span(start, count, scale)[1])
    np.testing.assert_array_equal(table, np.rint(table))
    np.testing.assert_array_equal(table.sum(axis=1), UNIT)
    assert table.min() >= 0


@given(height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 99))
@settings(deadline=None)
def test_the_fast_way_for_two_gives_the_same_values(height: int, width: int, seed: int) -> None:
    pixels, region = noise(2 * height, 2 * width, seed), Region(4, 6, height, width)
    np.testing.assert_array_equal(reduce(pixels, region, 2.0), reduce_exactly(pixels, region, 2.0))


def test_white_stays_white_and_black_black() -> None:
    for value in (0, 255):
        view = SlideView.at(MemorySlide(np.full((50, 50, 3), value, np.uint8), mpp=0.25), 0.61)
        assert (view.read(Region(0, 0, *view.size)) == value).all()


def test_a_level_within_tolerance_is_taken_as_it_is() -> None:
    slide = MemorySlide(noise(64, 48), mpp=0.2527, levels=3)
    view = SlideView.at(slide, 0.5)
    assert (view.level, view.resampled, view.scale) == (1, False, 2.0)
    assert view.mpp == pytest.approx(0.5054)
    np.testing.assert_array_equal(view.read(Region(3, 4, 10, 11)), slide.read(Region(3, 4, 10, 11), 1))


def test_otherwise_the_next_finer_level_is_resampled() -> None:
    view = SlideView.at(MemorySlide(noise(64, 48), mpp=0.25, levels=4), 0.75)
    assert (view.level, view.resampled, view.mpp, view.scale) == (1, True, 0.75, 3.0)
    assert view.size == Size(64 // 3, 48 // 3)


def test_without_a_resolution_level_0_is_taken() -> None:
    view = SlideView.at(MemorySlide(noise(9, 7)), None)
    assert (view.size, view.mpp, view.scale, view.level, view.resampled) == (Size(9, 7), None, 1.0, 0, False)


def test_an_unknown_pixel_size_is_asked_for() -> None:
    with pytest.raises(ResolutionError, match=r"not known.*--mpp"):
        SlideView.at(MemorySlide(noise(9, 7)), 0.5)


def test_a_pixel_size_that_was_not_believed_is_named() -> None:
    slide = MemorySlide(noise(9, 7), notices=("the file's pixel size of 1000 um cannot be true and is ignored",))
    with pytest.raises(ResolutionError, match="1000 um"):
        SlideView.at(slide, 0.5)


def test_a_slide_too_coarse_is_refused() -> None:
    with pytest.raises(ResolutionError, match=r"scanned at 1 um/px, too coarse for the 0.5"):
        SlideView.at(MemorySlide(noise(9, 7), mpp=1.0), 0.5)
    assert SlideView.at(MemorySlide(noise(9, 7), mpp=0.54), 0.5).mpp == 0.54


def test_outside_is_white() -> None:
    view = SlideView.at(MemorySlide(np.zeros((8, 8, 3), np.uint8), mpp=0.25), 0.5)
    pixels = view.read(Region(-2, 3, 8, 4))
    assert (pixels[2:6, :1] == 0).all()
    pixels[2:6, :1] = 255
    assert (pixels == 255).all()
    assert (view.read(Region(100, 100, 2, 2)) == 255).all()


def test_a_slide_smaller_than_a_working_pixel_is_one_pixel() -> None:
    view = SlideView.at(MemorySlide(np.zeros((3, 3, 3), np.uint8), mpp=0.25), 8.0)
    assert view.size == Size(1, 1)
    assert view.read(Region(0, 0, 1, 1)).shape == (1, 1, 3)


def test_a_large_region_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded memory: whatever the region, no more than a part of the source is asked for at once."""
    monkeypatch.setattr(resample, "SOURCE_PX", 16)
    asked: list[Region] = []

    class Recording(MemorySlide):
        def read(self, region: Region, level: int = 0) -> NDArray[np.uint8]:
            asked.append(region)
            return super().read(region, level)

    view = SlideView.at(Recording(noise(70, 90), mpp=0.25), 0.8)
    np.testing.assert_allclose(
        view.read(Region(0, 0, *view.size)), area_mean(noise(70, 90), view.size, view.scale), atol=0.75
    )
    assert len(asked) > 10
    assert max(max(region.size) for region in asked) <= 18
