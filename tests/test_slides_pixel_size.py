"""Which pixel sizes are believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsi_ihc.errors import UnsupportedSlideError
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.slides import pixel_size
from wsi_ihc.slides.descriptions import mpp_of_aperio, mpp_of_ome, objective_of_aperio, objective_of_ome
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
    ("unit", "value"), [("µm", 0.5), ("nm", 500.0), ("mm", 0.0005), ("cm", 0.00005), ("m", 5e-7), ("in", 0.5 / 25400)]
)
def test_ome_units(unit: str, value: float) -> None:
    xml = f'<OME><Image><Pixels SizeX="20" SizeY="10" PhysicalSizeX="{value}" PhysicalSizeXUnit="{unit}"'
    xml += f' PhysicalSizeY="{value}" PhysicalSizeYUnit="{unit}"/></Image></OME>'
    assert mpp_of_ome(xml, Size(10, 20)) == pytest.approx((0.5, 0.5))


def test_ome_takes_the_image_of_the_right_size() -> None:
    xml = '<OME xmlns="http://x"><Image><Pixels SizeX="5" SizeY="5" PhysicalSizeX="9" PhysicalSizeY="9"/></Image>'
    xml += '<Image><Pixels SizeX="20" SizeY="10" PhysicalSizeX="0.25" PhysicalSizeY="0.26"/></Image></OME>'
    assert mpp_of_ome(xml, Size(10, 20)) == (0.25, 0.26)


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "no xml",
        "<OME/>",
        '<OME><Pixels SizeX="2" SizeY="2"/></OME>',
        '<OME><Pixels SizeX="2" SizeY="2" PhysicalSizeX="1" PhysicalSizeXUnit="pixel"/></OME>',
    ],
)
def test_ome_without_a_pixel_size(xml: str) -> None:
    assert mpp_of_ome(xml, Size(2, 2)) is None


def test_ome_objective() -> None:
    xml = (
        '<OME:OME><OME:Instrument ID="a"><OME:Objective ID="b" NominalMagnification="40.0"/></OME:Instrument></OME:OME>'
    )
    assert objective_of_ome(xml) == "40.0"
    assert objective_of_ome("<OME/>") is None


def test_resolution_tags_count_only_with_a_unit() -> None:
    assert pixel_size.from_resolution_tags(20000.0, 20000.0, 3) == (0.5, 0.5)
    assert pixel_size.from_resolution_tags(50800.0, 50800.0, 2) == (0.5, 0.5)
    assert pixel_size.from_resolution_tags(20000.0, 20000.0, 1) is None
    assert pixel_size.from_resolution_tags(0.0, 0.0, 3) is None


@pytest.mark.parametrize("size", [Size(0, 5), Size(5, 0), Size(3_000_000, 5)])
def test_absurd_planes_are_refused(size: Size) -> None:
    with pytest.raises(UnsupportedSlideError, match="no slide"):
        check_plane(Path("x.svs"), size)
