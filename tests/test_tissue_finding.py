from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from wsi_ihc.cli.tissue import tissue as command
from wsi_ihc.config import TissueSettings
from wsi_ihc.errors import OutputError, SettingsError, UnsupportedSlideError
from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.slides import MemorySlide, SlideView
from wsi_ihc.tissue import find_tissue, tissue_from_thumbnail, write_geojson
from wsi_ihc.tissue.finding import MAX_THUMBNAIL_PX, thumbnail_view

PINK, GLASS = (225, 150, 190), (243, 243, 242)


def picture(height: int = 512, width: int = 640) -> NDArray[np.uint8]:
    rgb = np.full((height, width, 3), GLASS, np.uint8)
    rgb[128:384, 160:480] = PINK
    return rgb


def slide(mpp: float | None = 2.0) -> MemorySlide:
    return MemorySlide(picture(), mpp=mpp)


def test_the_mask_lies_on_the_working_plane_with_its_margin() -> None:
    for working in (None, 4.0):
        view = SlideView.at(slide(), working)
        mask = find_tissue(view, TissueSettings(margin_um=32))
        assert mask.size == view.size
        assert mask.downsample == pytest.approx(4.0 / view.scale)
        # 32 um are 4 mask pixels around the 64 x 80 of the tissue, whose edge is softened by one.
        rows, columns = np.nonzero(mask.pixels)
        assert (rows.min(), rows.max()) == (27, 100)
        assert (columns.min(), columns.max()) == (35, 124)


def test_a_slide_of_unknown_pixel_size_is_taken_for_a_20x_scan() -> None:
    view = SlideView.at(slide(None), None)
    mask = find_tissue(view, TissueSettings(margin_um=0))
    assert mask.downsample == 16
    assert mask.pixels.shape == (32, 40)
    assert mask.pixels.sum() == pytest.approx(16 * 20, rel=0.25)


def test_a_slide_coarser_than_the_mask_is_read_as_it_is() -> None:
    mask = find_tissue(SlideView.at(slide(30.0), None), TissueSettings(margin_um=0))
    assert mask.downsample == 1
    assert mask.pixels.sum() == pytest.approx(256 * 320, rel=0.03)


def test_a_huge_slide_is_looked_at_more_coarsely() -> None:
    class Huge(MemorySlide):
        """As large as a whole glass at 40x; nothing of it is read."""

    huge = Huge(picture(), mpp=0.25)
    huge.levels = [type(huge.levels[0])(Size(300_000, 100_000), 1.0)]
    view = thumbnail_view(huge, 8.0)
    assert view.mpp is not None
    assert view.mpp > 8
    assert view.size.height * view.size.width <= MAX_THUMBNAIL_PX


def test_none_stains_everything() -> None:
    view = SlideView.at(slide(), None)
    mask = find_tissue(view, TissueSettings(source="none"))
    assert mask.fraction(Region(0, 0, *view.size)) == 1
    assert mask.coverage(Region(100, 100, 64, 64)) is None


def test_a_file_is_taken_as_it_was_drawn(tmp_path: Path) -> None:
    view = SlideView.at(slide(), None)
    found = find_tissue(view)
    write_geojson(found, tmp_path / "mask.geojson", scale=view.scale)
    again = find_tissue(view, TissueSettings(source=str(tmp_path / "mask.geojson")))
    assert np.array_equal(again.pixels, found.pixels)
    assert again.downsample == found.downsample


def test_strips_do_not_show() -> None:
    rgb = np.full((1400, 64, 3), GLASS, np.uint8)
    rgb[300:1100, 16:48] = PINK
    mask = find_tissue(SlideView.at(MemorySlide(rgb, mpp=8.0), None), TissueSettings(margin_um=0))
    assert np.array_equal(mask.pixels, tissue_from_thumbnail(rgb, 8.0))


@pytest.fixture
def png_slide(tmp_path: Path) -> Path:
    path = tmp_path / "slide.png"
    cv2.imwrite(str(path), picture()[..., ::-1])
    return path


def run(*arguments: object) -> str:
    result = CliRunner().invoke(
        command, [str(argument) for argument in arguments], catch_exceptions=False, standalone_mode=False
    )
    if result.exception:
        raise result.exception
    return result.output


def test_the_command_writes_outlines_a_picture_and_one_line(png_slide: Path, tmp_path: Path) -> None:
    mask, overlay, grey = tmp_path / "m.geojson", tmp_path / "look.png", tmp_path / "m.png"
    said = run(png_slide, "-o", mask, "--overlay", overlay, "--mpp", 2)
    assert "tissue 32." in said
    assert "of 1.3 x 1.0 mm" in said
    assert str(mask) in said
    assert cv2.imread(str(overlay)).shape == (512, 640, 3)
    run(png_slide, "-o", grey, "--mpp", 2, "--tissue", mask)
    assert cv2.imread(str(grey), cv2.IMREAD_UNCHANGED).mean() / 255 == pytest.approx(0.324, abs=0.005)


def test_a_mask_that_exists_is_not_lost(png_slide: Path, tmp_path: Path) -> None:
    mask = tmp_path / "m.geojson"
    mask.write_text("drawn by hand")
    with pytest.raises(OutputError, match="--overwrite"):
        run(png_slide, "-o", mask)
    assert mask.read_text() == "drawn by hand"
    run(png_slide, "-o", mask, "--overwrite")
    assert mask.read_text() != "drawn by hand"


def test_a_name_with_another_ending_is_refused(png_slide: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"must end in \.geojson or \.png"):
        run(png_slide, "-o", tmp_path / "mask.txt")


def test_a_blank_slide_says_so(tmp_path: Path) -> None:
    blank = tmp_path / "blank.png"
    cv2.imwrite(str(blank), np.full((200, 200, 3), 243, np.uint8))
    with pytest.raises(UnsupportedSlideError, match="no tissue found"):
        run(blank, "-o", tmp_path / "m.png", "--overlay", tmp_path / "look.png", "--mpp", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blank.png", "look.png"]


@pytest.mark.parametrize("names", [("slide.png", "look.png"), ("m.png", "slide.png"), ("drawn.geojson", "look.png")])
def test_what_the_mask_is_made_from_is_never_replaced(png_slide: Path, tmp_path: Path, names: tuple[str, str]) -> None:
    run(png_slide, "-o", tmp_path / "drawn.geojson", "--mpp", 2)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    output, overlay = (tmp_path / name for name in names)
    options = ("--tissue", tmp_path / "drawn.geojson", "--mpp", 2, "--overwrite")
    with pytest.raises(SettingsError, match="is an input of this command"):
        run(png_slide, "-o", output, "--overlay", overlay, *options)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_mask_and_overlay_of_one_name_are_refused(png_slide: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="one name"):
        run(png_slide, "-o", tmp_path / "m.png", "--overlay", tmp_path / "m.png")
