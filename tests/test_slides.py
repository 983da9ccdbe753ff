"""One contract for every reader, and what each promises beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from wsi_ihc.config import SlideSettings
from wsi_ihc.errors import UnreadableSlideError, UnsupportedSlideError
from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.slides import Level, MemorySlide, SlideReader, open_slide
from wsi_ihc.slides.assembly import TileCache
from wsi_ihc.slides.image import open_image
from wsi_ihc.slides.levels import pyramid
from wsi_ihc.slides.openslide import OpenSlideReader
from wsi_ihc.slides.tiff import TiffReader
from wsi_ihc.slides.tiffslide import TiffSlideReader

Plane = NDArray[np.uint8]
MPP = 0.5
SETTINGS = SlideSettings()


def tissue(height: int = 100, width: int = 131) -> Plane:
    """Smooth colours, so that JPEG keeps them, with enough noise that no two places are alike."""
    rows, columns = np.mgrid[:height, :width]
    smooth = np.stack(
        [120 + 100 * np.sin(rows / 17), 90 + columns * 0.8, 150 + 60 * np.cos((rows + columns) / 23)], axis=-1
    )
    noise = np.random.default_rng(1).integers(0, 12, smooth.shape)
    return (smooth + noise).clip(0, 255).astype(np.uint8)


def planes(levels: int = 3) -> list[Plane]:
    """Level sizes 100 x 131, 50 x 65, 25 x 32: the last two lost a column to rounding."""
    made = [tissue()]
    while len(made) < levels:
        height, width = made[-1].shape[0] // 2, made[-1].shape[1] // 2
        even = made[-1][: 2 * height, : 2 * width]
        made.append(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8))
    return made


def write_tiff(path: Path, levels: list[Plane], *, ome: bool = False, **options: object) -> Path:
    """A tiled pyramid: reduced pages in the main chain, or SubIFDs and OME-XML."""
    settings: dict[str, object] = {"tile": (32, 48), "photometric": "rgb", "compression": "deflate", "metadata": None}
    settings |= {"resolution": (1e4 / MPP, 1e4 / MPP), "resolutionunit": "CENTIMETER"} | options
    if ome:
        settings["metadata"] = {"axes": "YXS", "PhysicalSizeX": 500.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5}
        settings["resolution"] = (1, 1)
    with tifffile.TiffWriter(path, ome=ome) as tiff:
        tiff.write(levels[0], subifds=len(levels) - 1 if ome else 0, **settings)
        for level in levels[1:]:
            tiff.write(level, subfiletype=1, **(settings | {"metadata": None}))
    return path


def padded(truth: Plane, region: Region) -> Plane:
    """What a read must give: the plane, and white around it."""
    canvas = np.full((*region.size, 3), 255, np.uint8)
    inside = region.intersection(Region(0, 0, *truth.shape[:2]))
    if inside.area:
        canvas[inside.relative_to(region).slices] = truth[inside.slices]
    return canvas


def _from_memory(folder: Path) -> tuple[SlideReader, list[Plane]]:
    return MemorySlide(tissue(), mpp=MPP, levels=3), planes()


def _from_tiff(folder: Path) -> tuple[SlideReader, list[Plane]]:
    return TiffReader(write_tiff(folder / "slide.tiff", planes()), SETTINGS), planes()


def _from_ome(folder: Path) -> tuple[SlideReader, list[Plane]]:
    return TiffReader(write_tiff(folder / "slide.ome.tiff", planes(), ome=True), SETTINGS), planes()


def _from_strips(folder: Path) -> tuple[SlideReader, list[Plane]]:
    path = write_tiff(folder / "flat.tiff", planes(1), tile=None, rowsperstrip=7)
    return TiffReader(path, SETTINGS), planes(1)


def _without_cache(folder: Path) -> tuple[SlideReader, list[Plane]]:
    return TiffReader(write_tiff(folder / "slide.tiff", planes()), SlideSettings(cache_mb=0)), planes()


def _from_openslide(folder: Path) -> tuple[SlideReader, list[Plane]]:
    return OpenSlideReader(write_tiff(folder / "slide.tiff", planes()), SETTINGS), planes()


def _from_tiffslide(folder: Path) -> tuple[SlideReader, list[Plane]]:
    return TiffSlideReader(write_tiff(folder / "slide.tiff", planes()), SETTINGS), planes()


def _from_png(folder: Path) -> tuple[SlideReader, list[Plane]]:
    Image.fromarray(tissue()).save(folder / "picture.png")
    return open_image(folder / "picture.png", SlideSettings(mpp=MPP)), planes(1)


READERS: dict[str, Callable[[Path], tuple[SlideReader, list[Plane]]]] = {
    "memory": _from_memory,
    "tiff": _from_tiff,
    "ome-tiff": _from_ome,
    "strips": _from_strips,
    "without cache": _without_cache,
    "openslide": _from_openslide,
    "tiffslide": _from_tiffslide,
    "png": _from_png,
}


@pytest.fixture(params=READERS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[SlideReader, list[Plane]]]:
    slide, truth = READERS[request.param](tmp_path)
    yield slide, truth
    slide.close()


def windows(size: tuple[int, ...], count: int = 25) -> list[Region]:
    """Windows inside, across the edge and outside of a plane."""
    random = np.random.default_rng(2)
    corners = random.integers(-20, [size[0] + 10, size[1] + 10], (count, 2))
    return [Region(int(top), int(left), *map(int, random.integers(1, 70, 2))) for top, left in corners]


class TestContract:
    def test_levels(self, case: tuple[SlideReader, list[Plane]]) -> None:
        slide, truth = case
        assert [level.size for level in slide.levels] == [Size(*plane.shape[:2]) for plane in truth]
        assert [level.downsample for level in slide.levels] == [1.0, 2.0, 4.0][: len(truth)]

    def test_pixel_size(self, case: tuple[SlideReader, list[Plane]]) -> None:
        assert case[0].mpp == pytest.approx(MPP)

    def test_every_window_has_the_plane_and_white_around_it(self, case: tuple[SlideReader, list[Plane]]) -> None:
        slide, truth = case
        for level, plane in enumerate(truth):
            for region in windows(plane.shape):
                pixels = slide.read(region, level)
                assert (pixels.dtype, pixels.shape) == (np.uint8, (*region.size, 3))
                np.testing.assert_array_equal(pixels, padded(plane, region), err_msg=f"{region} of level {level}")

    def test_a_read_may_be_written_to(self, case: tuple[SlideReader, list[Plane]]) -> None:
        """What a caller does to its pixels never reaches the slide or its cache."""
        slide, truth = case
        for region in (Region(0, 0, 32, 48), Region(0, 0, *truth[0].shape[:2])):
            slide.read(region)[...] = 7
            np.testing.assert_array_equal(slide.read(region), padded(truth[0], region))

    def test_many_threads_read_the_same_pixels(self, case: tuple[SlideReader, list[Plane]]) -> None:
        slide, truth = case
        regions = windows(truth[0].shape, 60)
        with ThreadPoolExecutor(8) as threads:
            for region, pixels in zip(regions, threads.map(slide.read, regions), strict=True):
                np.testing.assert_array_equal(pixels, padded(truth[0], region))

    def test_a_closed_slide_is_one_clear_error(self, case: tuple[SlideReader, list[Plane]]) -> None:
        """Whatever was decoded before, and outside the plane as well."""
        slide, truth = case
        slide.read(Region(0, 0, 8, 8))
        slide.close()
        slide.close()
        name = str(slide.path or "slide in memory")
        for level in range(len(truth)):
            for region in (Region(0, 0, 8, 8), Region(5, 5, 60, 60), Region(-30, -30, 8, 8)):
                with pytest.raises(UnreadableSlideError) as caught:
                    slide.read(region, level)
                assert str(caught.value) == f"{name}: cannot be read any more, it was closed"

    def test_closing_under_reading_threads_gives_right_pixels_or_the_error(
        self, case: tuple[SlideReader, list[Plane]]
    ) -> None:
        slide, truth = case
        regions = windows(truth[0].shape, 400)
        begun = Event()

        def read(region: Region) -> Plane | str:
            begun.set()
            try:
                return slide.read(region)
            except UnreadableSlideError as error:
                return str(error)

        with ThreadPoolExecutor(8) as threads:
            results = threads.map(read, regions)
            begun.wait()
            slide.close()
        for region, result in zip(regions, results, strict=True):
            if isinstance(result, str):
                assert result.endswith("cannot be read any more, it was closed")
            else:
                np.testing.assert_array_equal(result, padded(truth[0], region))

    def test_nothing_private_is_told(self, case: tuple[SlideReader, list[Plane]]) -> None:
        assert set(case[0].properties) <= {"vendor", "objective", "mpp-x", "mpp-y", "quickhash"}


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files through /proc")
@pytest.mark.parametrize("reader", ["auto", "openslide", "tiffslide"])
def test_two_hundred_slides_leave_no_file_open(tmp_path: Path, reader: str) -> None:
    path = write_tiff(tmp_path / "slide.tiff", planes())
    settings = SlideSettings.model_validate({"reader": reader})

    def open_and_close() -> None:
        slide = open_slide(path, settings)
        slide.read(Region(0, 0, 8, 8))
        slide.close()

    open_and_close()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(200 if reader != "tiffslide" else 20):  # tiffslide takes 20 ms to open
        open_and_close()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_without_pread_threads_share_the_position(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    monkeypatch.delattr(os, "pread", raising=False)
    slide = TiffReader(write_tiff(tmp_path / "slide.tiff", planes()), SlideSettings(cache_mb=0))
    regions = windows((100, 131), 60)
    with ThreadPoolExecutor(8) as threads:
        for region, pixels in zip(regions, threads.map(slide.read, regions), strict=True):
            np.testing.assert_array_equal(pixels, padded(tissue(), region))


def test_a_missing_tile_is_white(tmp_path: Path) -> None:
    path = tmp_path / "sparse.tiff"
    black = np.zeros((32, 48, 3), np.uint8)
    tiles = iter([black.tobytes(), b"", b"", black.tobytes()])
    tifffile.imwrite(path, tiles, shape=(64, 96, 3), dtype=np.uint8, tile=(32, 48), photometric="rgb")
    pixels = TiffReader(path, SETTINGS).read(Region(0, 0, 64, 96))
    assert (pixels[:32, :48] == 0).all()
    assert (pixels[:32, 48:] == 255).all()
    assert (pixels[32:, :48] == 255).all()


def test_transparent_pixels_lie_on_white_glass(tmp_path: Path) -> None:
    pixels = np.zeros((32, 48, 4), np.uint8)
    pixels[:, 16:, 3], pixels[:, 32:, 3] = 128, 255
    write_tiff(tmp_path / "alpha.tiff", [pixels], extrasamples=["unassalpha"])
    Image.fromarray(pixels).save(tmp_path / "alpha.png")
    for name in ("alpha.tiff", "alpha.png"):
        row = open_slide(tmp_path / name).read(Region(0, 0, 1, 48))[0, :, 0]
        assert (row[:16] == 255).all()
        assert abs(int(row[20]) - 127) <= 1
        assert (row[32:] == 0).all()


class TestDamage:
    @pytest.fixture
    def jpeg(self, tmp_path: Path) -> Path:
        return write_tiff(tmp_path / "slide.tiff", planes(1), compression="jpeg", photometric="ycbcr", tile=(32, 48))

    def _tile(self, path: Path, index: int) -> tuple[int, int]:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            return page.dataoffsets[index], page.databytecounts[index]

    def _overwrite(self, path: Path, offset: int, data: bytes) -> None:
        with path.open("r+b") as stream:
            stream.seek(offset)
            stream.write(data)

    def test_a_damaged_tile_is_named_and_the_others_still_read(self, jpeg: Path) -> None:
        offset, count = self._tile(jpeg, 4)
        self._overwrite(jpeg, offset, bytes(count))
        slide = open_slide(jpeg)
        slide.read(Region(0, 0, 32, 131))
        for _ in range(2):
            with pytest.raises(UnreadableSlideError, match=r"slide\.tiff: damaged at level 0, x 48, y 32"):
                slide.read(Region(0, 0, 100, 131))
        slide.read(Region(64, 0, 32, 131))

    def test_a_tile_that_stops_early_is_not_filled_with_grey(self, jpeg: Path) -> None:
        offset, count = self._tile(jpeg, 0)
        self._overwrite(jpeg, offset + count // 2, bytes(count - count // 2))
        with pytest.raises(UnreadableSlideError, match="stop before their end"):
            open_slide(jpeg).read(Region(0, 0, 1, 1))

    def test_a_tile_of_another_size_is_damage(self, jpeg: Path) -> None:
        offset, count = self._tile(jpeg, 0)
        data = bytearray(jpeg.read_bytes()[offset : offset + count])
        frame = data.index(b"\xff\xc0")
        data[frame + 5 : frame + 7] = (16).to_bytes(2, "big")  # the height in the JPEG's own header
        self._overwrite(jpeg, offset, bytes(data))
        with pytest.raises(UnreadableSlideError, match="damaged at level 0, x 0, y 0"):
            open_slide(jpeg).read(Region(0, 0, 1, 1))

    def test_a_truncated_file_is_refused_at_once(self, jpeg: Path) -> None:
        # tifffile writes the IFD first, so what a broken download lacks is tiles.
        with jpeg.open("r+b") as stream:
            stream.truncate(self._tile(jpeg, 8)[0] + 10)
        with pytest.raises(UnreadableSlideError, match="truncated, 4 of 12 tiles"):
            open_slide(jpeg)

    def test_a_list_of_pages_that_breaks_off_is_told(self, tmp_path: Path) -> None:
        path = write_tiff(tmp_path / "slide.tiff", planes(3))
        assert not any("breaks off" in notice for notice in open_slide(path).notices)
        with tifffile.TiffFile(path) as tiff:
            last = tiff.pages[2].offset
        with path.open("r+b") as stream:
            stream.truncate(last)
        slide = open_slide(path)
        assert len(slide.levels) == 2
        assert "breaks off" in slide.notices[0]

    def test_openslide_names_the_place_too(self, jpeg: Path) -> None:
        offset, count = self._tile(jpeg, 0)
        self._overwrite(jpeg, offset, b"\xff\xd8\xff\xd9" + bytes(count - 4))
        slide = open_slide(jpeg, SlideSettings(reader="openslide"))
        for _ in range(2):
            with pytest.raises(UnreadableSlideError, match=r"slide\.tiff: damaged at level 0, near x 0, y 0"):
                slide.read(Region(0, 0, 8, 8))

    def test_a_file_that_vanishes_is_one_clear_error(self, jpeg: Path) -> None:
        slide = open_slide(jpeg)
        slide.close()
        with pytest.raises(UnreadableSlideError, match="cannot be read any more"):
            slide.read(Region(0, 0, 8, 8))


class TestLevels:
    def test_the_label_is_never_a_level(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "slide.tiff") as tiff:
            options = {"photometric": "rgb", "metadata": None}
            tiff.write(tissue(), tile=(32, 48), **options)
            tiff.write(tissue(50, 65), **options)  # a thumbnail: right shape, but in strips
            tiff.write(planes()[1], tile=(32, 48), subfiletype=1, **options)
            tiff.write(tissue(60, 40), tile=(32, 48), subfiletype=1, **options)  # a label: tiled, but another shape
            tiff.write(tissue(25, 33), tile=(32, 48), subfiletype=9, **options)  # a macro
        assert [level.size for level in open_slide(tmp_path / "slide.tiff").levels] == [Size(100, 131), Size(50, 65)]

    def test_a_hybrid_of_subifds_and_pages_has_each_level_once(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "slide.tiff") as tiff:
            options = {"photometric": "rgb", "metadata": None, "tile": (32, 48)}
            tiff.write(planes()[0], subifds=1, **options)
            tiff.write(planes()[1], subfiletype=1, **options)
            tiff.write(planes()[1], subfiletype=1, **options)
        slide = open_slide(tmp_path / "slide.tiff")
        assert slide.levels == (Level(Size(100, 131), 1.0), Level(Size(50, 65), 2.0))

    @pytest.mark.parametrize(
        ("base", "size", "downsample"),
        [
            (Size(10249, 11952), Size(2562, 2988), 4.0),
            (Size(4691, 5120), Size(146, 160), 32.0),
            (Size(100, 100), Size(33, 33), 100 / 33),
            (Size(100, 200), Size(60, 120), 5 / 3),
        ],
    )
    def test_downsamples_are_exact_powers_where_rounding_explains_the_rest(
        self, base: Size, size: Size, downsample: float
    ) -> None:
        assert pyramid([base, size])[1].downsample == pytest.approx(downsample, abs=1e-12)


class TestBounds:
    def test_the_scan_begins_at_its_bounds(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import openslide

        bounds = {"openslide.bounds-x": "12", "openslide.bounds-y": "20"}
        bounds |= {"openslide.bounds-width": "100", "openslide.bounds-height": "60"}

        class Bounded(openslide.OpenSlide):
            properties = bounds

        base, reduced = planes()[0][:, :128], planes()[1][:, :64]
        path = write_tiff(tmp_path / "slide.tiff", [base, reduced])
        monkeypatch.setattr(openslide, "OpenSlide", Bounded)
        slide = OpenSlideReader(path, SETTINGS)
        assert [level.size for level in slide.levels] == [Size(60, 100), Size(30, 50)]
        region = Region(-2, -2, 64, 104)
        np.testing.assert_array_equal(slide.read(region), padded(base[20:80, 12:112], region))
        np.testing.assert_array_equal(slide.read(region, 1), padded(reduced[10:40, 6:56], region))


class TestCache:
    def test_the_least_recently_used_tile_goes_first(self) -> None:
        cache, decoded = TileCache(2 * 300), []

        def get(key: str) -> None:
            def decode() -> Plane:
                decoded.append(key)
                return np.zeros((10, 10, 3), np.uint8)

            cache.get(key, decode)

        for key in "abacab":
            get(key)
        assert decoded == ["a", "b", "c", "b"]

    def test_missing_tiles_are_remembered_and_cost_little(self) -> None:
        cache = TileCache(1000)
        assert cache.get("hole", lambda: None) is None
        assert cache.get("hole", lambda: pytest.fail("asked again")) is None


def test_planar_colours_go_to_openslide_and_say_so(tmp_path: Path) -> None:
    path = tmp_path / "planar.tiff"
    colours_apart = np.moveaxis(tissue(), 2, 0)
    tifffile.imwrite(path, colours_apart, planarconfig="separate", tile=(32, 48), photometric="rgb", compression="lzw")
    slide = open_slide(path)
    assert slide.name == "openslide"
    assert any("read with openslide" in notice and "separate planes" in notice for notice in slide.notices)
    np.testing.assert_array_equal(slide.read(Region(0, 0, 100, 131)), tissue())
    with pytest.raises(UnsupportedSlideError):
        open_slide(path, SlideSettings(reader="tiffslide"))
