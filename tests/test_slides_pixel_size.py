"""Which pixel sizes are believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsi_ihc.errors import UnsupportedSlideError
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.slides import pixel_size
from wsi_ihc.slides.descriptions import mpp_of_aperio, objective_of_aperio
from wsi_ihc.slides.levels import check_plane
from wsi_ihc.slides.pixel_size import settle


def test_equal_axes_stay_exactly_as_stated() -> None:
    assert settle((0.499, 0.499), None) == pixel_size.PixelSize(0.499)


@pytest.mark.parametrize("stated", [0.0, 1000.0, 352.8, 0.01, float("nan"), float("inf"), -0.5])
def test_what_cannot_be_true_is_ignored_and_told(stated: float) -> None:
    believed = settle((stated, stated), None)
    assert believed.mpp is None
    assert "cannot be true" in believed.notices[0]
    assert f"{stated:.4g}" in believed.notices[0]


def test_nothing_stated_needs_no_notice() -> None:
    assert settle(None, None) == pixel_size.PixelSize(None)


def test_the_user_has_the_last_word() -> None:
    believed = settle((1000.0, 1000.0), 0.25)
    assert believed.mpp == 0.25
    assert "1000 um" in believed.notices[0]


@pytest.mark.parametrize("given", [0.499, 0.5, 0.49])
def test_the_user_may_say_what_the_file_says(given: float) -> None:
    assert settle((0.499, 0.499), given) == pixel_size.PixelSize(given)


def test_the_user_against_the_file_is_told() -> None:
    assert "as given, the file says 0.499 um" in settle((0.499, 0.499), 0.25).notices[0]


def test_axes_within_two_percent_are_square() -> None:
    believed = settle((0.500, 0.505), None)
    assert believed.mpp == pytest.approx(0.5025, abs=1e-4)
    assert not believed.notices


def test_axes_within_ten_percent_are_averaged_and_told() -> None:
    believed = settle((0.50, 0.53), None)
    assert believed.mpp == pytest.approx(0.5148, abs=1e-4)
    assert "taken as squares" in believed.notices[0]


def test_oblong_pixels_are_not_believed() -> None:
    believed = settle((0.25, 0.5), None)
    assert believed.mpp is None
    assert "not square" in believed.notices[0]


APERIO = "Aperio Image Library v11.2.1 \r\n46000x32914 JPEG/RGB Q=30|AppMag = 20|User = someone|MPP = 0.4990|Left = 25"


def test_aperio() -> None:
    assert mpp_of_aperio(APERIO) == (0.499, 0.499)
    assert objective_of_aperio(APERIO) == "20"
    assert mpp_of_aperio("Aperio Image Library|AppMag = x") is None


@pytest.mark.parametrize(
    ("text", "mpp"),
    [
        ("0.4990", 0.499),
        ("0,500000", 0.5),
        ("1,008", 1.008),
        ("2.5E-1", 0.25),
        ("0.5 um", 0.5),
        (" .25 ", 0.25),
        ("-1", -1.0),
    ],
)
def test_a_number_is_read_whole(text: str, mpp: float) -> None:
    assert mpp_of_aperio(f"Aperio|AppMag = 20|MPP = {text}|Left = 3") == (mpp, mpp)


@pytest.mark.parametrize("text", ["1.#QNAN", "0.25.1", "NaN", "1,234.5", "0x1", "1e9999", "0.5 mm", "٣", "5" * 90])
def test_half_a_number_is_none(text: str) -> None:
    believed = settle(mpp_of_aperio(f"Aperio|MPP = {text}"), None)
    assert believed.mpp is None
    assert "no number" in believed.notices[0]


@pytest.mark.parametrize("text", ["", "  "])
def test_no_text_is_no_statement(text: str) -> None:
    assert mpp_of_aperio(f"Aperio|MPP = {text}|Left = 1") is None


def test_resolution_tags_count_only_with_a_unit() -> None:
    assert pixel_size.from_resolution_tags(20000.0, 20000.0, 3) == (0.5, 0.5)
    assert pixel_size.from_resolution_tags(50800.0, 50800.0, 2) == (0.5, 0.5)
    assert pixel_size.from_resolution_tags(20000.0, 20000.0, 1) is None
    assert pixel_size.from_resolution_tags(0.0, 0.0, 3) is None


@pytest.mark.parametrize("size", [Size(0, 5), Size(5, 0), Size(3_000_000, 5)])
def test_absurd_planes_are_refused(size: Size) -> None:
    with pytest.raises(UnsupportedSlideError, match="no slide"):
        check_plane(Path("x.svs"), size)
