"""Levels are believed by what they state and by what they show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from tests.conftest import stained_island
from tests.test_slides_dicom_direct import write as write_dicom
from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.slides import SlideReader, SlideView, open_slide
from wsi_ihc.slides.levels import Level, possible_downsamples, pyramid, stated_downsample

Plane = NDArray[np.uint8]
OPTIONS = {"tile": (64, 64), "photometric": "rgb", "compression": "deflate", "metadata": None}


def tissue(height: int, width: int, seed: int = 0) -> Plane:
    """The middle of an island."""
    return stained_island(3 * height // 2, 3 * width // 2, seed)[height // 4 :, width // 4 :][:height, :width]


def reduced(pixels: Plane, factor: int, how: int = cv2.INTER_AREA) -> Plane:
    size = pixels.shape[1] // factor, pixels.shape[0] // factor
    return cv2.resize(pixels[: size[1] * factor, : size[0] * factor], size, interpolation=how).astype(np.uint8)


@pytest.fixture(scope="module")
def base() -> Plane:
    """1,024 x 768 px with structure all over."""
    return tissue(768, 1024)


def write(path: Path, levels: list[Plane], mpp: list[float] | None = None) -> Path:
    with tifffile.TiffWriter(path) as tiff:
        for number, level in enumerate(levels):
            spacing = (mpp or [0.25])[min(number, len(mpp or [0.25]) - 1)]
            resolution = {"resolution": (1e4 / spacing, 1e4 / spacing), "resolutionunit": "CENTIMETER"}
            tiff.write(np.ascontiguousarray(level), subfiletype=int(number > 0), **OPTIONS, **resolution)
    return path


def without_tiles(path: Path, page: int, indices: list[int]) -> Path:
    """The file with byte counts of 0 for some tiles of a page."""
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tags = tiff.pages[page].tags
        for name in ("TileOffsets", "TileByteCounts"):
            values = list(tags[name].value)
            for index in indices:
                values[index] = 0
            tags[name].overwrite(values)
    return path


def whole(slide: SlideReader, level: int = 0) -> Plane:
    return slide.read(Region(0, 0, *slide.levels[level].size), level)


class TestSoundLevels:
    @pytest.mark.parametrize("how", [cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_LANCZOS4])
    @pytest.mark.parametrize("factor", [2, 3, 4, 8])
    def test_every_filter_is_believed(self, tmp_path: Path, base: Plane, how: int, factor: int) -> None:
        slide = open_slide(write(tmp_path / "a.tiff", [base, reduced(base, factor, how)]))
        assert [level.downsample for level in slide.levels] == pytest.approx([1.0, factor], rel=0.002)
        assert (slide.name, slide.notices) == ("tiff", ())

    def test_brightness_noise_and_a_pixel_of_shift_are_no_fault(self, tmp_path: Path, base: Plane) -> None:
        noise = np.random.default_rng(3).normal(5, 8, (384, 512, 3))
        level = np.clip(np.roll(reduced(base, 2), 1, axis=1) * 0.95 + noise, 0, 255).astype(np.uint8)
        assert not open_slide(write(tmp_path / "a.tiff", [base, level])).notices

    def test_a_level_of_glass_under_glass_is_believed(self, tmp_path: Path) -> None:
        glass = np.full((256, 256, 3), 243, np.uint8)
        assert len(open_slide(write(tmp_path / "a.tiff", [glass, glass[::2, ::2]])).levels) == 2


def black(level: Plane) -> Plane:
    return level * 0


def white(level: Plane) -> Plane:
    return level * 0 + 255


def moved(level: Plane) -> Plane:
    return np.roll(level, 40, axis=1)


def a_little_moved(level: Plane) -> Plane:
    return np.roll(level, 6, axis=0)


def mirrored(level: Plane) -> Plane:
    return level[:, ::-1]


def other_channels(level: Plane) -> Plane:
    return level[..., [1, 0, 2]]


def another_slide(level: Plane) -> Plane:
    return tissue(*level.shape[:2], seed=8)


def half_white(level: Plane) -> Plane:
    """Tiles that were written, and are empty."""
    level = level.copy()
    level[:, : level.shape[1] // 2] = 255
    return level


class TestLevelsThatShowSomethingElse:
    @pytest.mark.parametrize(
        "fault", [black, white, moved, a_little_moved, mirrored, other_channels, another_slide, half_white]
    )
    @pytest.mark.parametrize("factor", [2, 4])
    def test_they_are_not_used_and_told(
        self, tmp_path: Path, base: Plane, fault: Callable[[Plane], Plane], factor: int
    ) -> None:
        path = write(tmp_path / "a.tiff", [base, fault(reduced(base, factor)), reduced(base, 4 * factor)])
        slide = open_slide(path)
        assert [level.downsample for level in slide.levels] == [1.0, 4.0 * factor]
        assert any("level 1 of the file is not used" in notice for notice in slide.notices)
        np.testing.assert_array_equal(whole(slide, 1), reduced(base, 4 * factor))

    def test_a_damaged_level_is_not_used(self, tmp_path: Path, base: Plane) -> None:
        path = write(tmp_path / "a.tiff", [base, reduced(base, 2)])
        with tifffile.TiffFile(path) as tiff:
            start, end = tiff.pages[1].dataoffsets[0], tiff.pages[1].dataoffsets[-1]
        data = bytearray(path.read_bytes())
        data[start:end] = bytes(end - start)
        path.write_bytes(data)
        slide = open_slide(path)
        assert len(slide.levels) == 1
        assert "not used: damaged" in slide.notices[0]

    def test_tissue_that_only_a_reduced_level_shows_is_told(self, tmp_path: Path, base: Plane) -> None:
        path = write(tmp_path / "a.tiff", [half_white(base), reduced(base, 2)])
        assert any("missing near x" in notice and "of level 0" in notice for notice in open_slide(path).notices)

    def test_two_images_of_one_shape_are_not_levels(self, tmp_path: Path, base: Plane) -> None:
        assert len(open_slide(write(tmp_path / "a.tiff", [base, tissue(384, 512, seed=5)])).levels) == 1


class TestPadding:
    def padded(self, level: Plane, px: int) -> Plane:
        return np.pad(level, ((0, px), (0, px), (0, 0)), constant_values=255)

    @pytest.mark.parametrize("stated", [None, [0.25, 0.5]])
    def test_the_scale_is_that_of_the_content(self, tmp_path: Path, base: Plane, stated: list[float] | None) -> None:
        path = write(tmp_path / "a.tiff", [base, self.padded(reduced(base, 2), 4)], stated)
        slide = open_slide(path)
        assert slide.levels[1] == Level(Size(384, 512), 2.0)
        np.testing.assert_array_equal(slide.read(Region(0, 0, 390, 520), 1)[:384, :512], reduced(base, 2))
        assert (slide.read(Region(384, 512, 4, 4), 1) == 255).all()
        assert SlideView.at(slide, 0.5).size == Size(384, 512)

    def test_the_stated_spacing_decides_where_the_content_says_nothing(self, tmp_path: Path) -> None:
        glass = np.full((512, 512, 3), 243, np.uint8)
        path = write(tmp_path / "a.tiff", [glass, glass[:264, :264]], [0.25, 0.5])
        assert open_slide(path).levels[1] == Level(Size(256, 256), 2.0)

    def test_a_stated_spacing_that_contradicts_the_content_is_not_believed(self, tmp_path: Path, base: Plane) -> None:
        path = write(tmp_path / "a.tiff", [base, reduced(base, 2)], [0.25, 0.53])
        assert open_slide(path).levels[1].downsample == 2.0

    def test_dicom_levels_have_their_own_spacing(self, tmp_path: Path) -> None:
        from pydicom.dataset import Dataset
        from pydicom.sequence import Sequence

        glass = np.full((256, 256, 3), 240, np.uint8)
        for name, level, spacing in (("a", glass, 0.0005), ("b", glass[:136, :136], 0.001)):
            measures, shared = Dataset(), Dataset()
            measures.PixelSpacing = [spacing, spacing]
            shared.PixelMeasuresSequence = Sequence([measures])
            write_dicom(tmp_path / f"{name}.dcm", level, SharedFunctionalGroupsSequence=Sequence([shared]))
        assert open_slide(tmp_path).levels[1] == Level(Size(128, 128), 2.0)

    @pytest.mark.parametrize(("mpp", "scale"), [(0.5, 2.0), (0.25, None), (None, None), (0.49772, None)])
    def test_a_statement_counts_where_padding_explains_it(self, mpp: float | None, scale: float | None) -> None:
        base, level = pyramid([Size(5632, 4096), Size(2828, 2058)], [0.25, mpp])
        assert stated_downsample(base, level) == scale

    def test_no_other_scale_is_tried_where_the_size_leaves_no_doubt(self) -> None:
        assert possible_downsamples(Size(10249, 11952), Level(Size(2562, 2988), 4.0)) == []
        assert 2.0 in possible_downsamples(Size(5632, 4096), Level(Size(2828, 2058), 1.9909))


class TestMissingTiles:
    def test_they_are_made_from_the_finer_level(self, tmp_path: Path, base: Plane) -> None:
        path = write(tmp_path / "a.tiff", [base, reduced(base, 2), reduced(base, 4)])
        without_tiles(without_tiles(path, 1, list(range(48))), 2, [0, 5, 6])
        slide = open_slide(path)
        assert slide.levels[1:] == (Level(Size(384, 512), 2.0), Level(Size(192, 256), 4.0))
        np.testing.assert_array_equal(whole(slide, 1), reduced(base, 2))
        assert np.abs(whole(slide, 2).astype(int) - reduced(base, 4)).max() <= 1
        assert "level 1 lacks 48 of 48 tiles: made from the finer level" in slide.notices

    def test_what_was_never_scanned_stays_glass_without_a_word(self, tmp_path: Path, base: Plane) -> None:
        empty = base.copy()
        empty[:128, :128] = 0
        path = write(tmp_path / "a.tiff", [empty, reduced(empty, 2)])
        without_tiles(without_tiles(path, 0, [0, 1, 16, 17]), 1, [0])
        slide = open_slide(path)
        assert not slide.notices
        assert (slide.read(Region(0, 0, 64, 64), 1) == 255).all()
        assert (slide.read(Region(0, 0, 128, 128)) == 255).all()
