"""The right reader for each content, and one clear line for everything that is no brightfield slide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from wsi_ihc.config import SlideSettings
from wsi_ihc.errors import SlideError, UnreadableSlideError, UnsupportedSlideError
from wsi_ihc.pyramid.geometry import Region
from wsi_ihc.slides import MemorySlide, SlideReader, check_brightfield, open_slide, opening
from wsi_ihc.slides.reader import NotForThisReader

PINK = (220, 150, 190)


def pink(height: int = 64, width: int = 64) -> NDArray[np.uint8]:
    return np.full((height, width, 3), PINK, np.uint8)


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "really_a_tiff.png", pink(), tile=(16, 16), photometric="rgb")
    Image.fromarray(pink()).save(tmp_path / "really_a_png.svs", format="PNG")
    assert open_slide(tmp_path / "really_a_tiff.png").name == "tiff"
    assert open_slide(str(tmp_path / "really_a_png.svs")).name == "image"


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "jp2"])
def test_pictures(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(pink()).save(tmp_path / f"tile.{suffix}")
    slide = open_slide(tmp_path / f"tile.{suffix}")
    assert (slide.name, slide.mpp, len(slide.levels)) == ("image", None, 1)
    assert np.abs(slide.read(Region(10, 10, 5, 5)).astype(int) - PINK).max() <= 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 5\n", "git-LFS pointer"),
        (b"<!DOCTYPE HTML PUBLIC>\n<html>", "web page"),
        (b"\n<html><body>503</body></html>", "web page"),
        (b"PK\x03\x04" + bytes(100), "archive"),
        (b'{"a": 1}', "XML or JSON"),
        (b"I'm a slide, I promise", "text file"),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "slide.svs"
    path.write_bytes(content)
    with pytest.raises(UnreadableSlideError, match=f"slide.svs: .*{said}"):
        open_slide(path)


def test_bytes_that_nobody_knows(tmp_path: Path) -> None:
    (tmp_path / "slide.svs").write_bytes(bytes(range(256)) * 4)
    with pytest.raises(UnsupportedSlideError, match=r"cannot be read \(openslide: unknown format\)"):
        open_slide(tmp_path / "slide.svs")


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(UnreadableSlideError, match="No such file"):
        open_slide(tmp_path / "slide.svs")


def test_a_mirax_file_without_its_folder(tmp_path: Path) -> None:
    Image.fromarray(pink()).save(tmp_path / "slide.mrxs", format="JPEG")
    with pytest.raises(UnsupportedSlideError, match="its folder slide/ with the slide's data is missing"):
        open_slide(tmp_path / "slide.mrxs")


def test_a_folder_without_dicom(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedSlideError, match="a folder with no DICOM file"):
        open_slide(tmp_path)


@pytest.mark.parametrize(
    ("pixels", "options", "found"),
    [
        (np.zeros((64, 64), np.uint8), {}, "greyscale"),
        (np.zeros((64, 64, 3), np.uint16), {"photometric": "rgb"}, "uint16"),
        (np.zeros((64, 64, 3), np.float32), {"photometric": "rgb"}, "float32"),
        (np.zeros((64, 64, 5), np.uint8), {"photometric": "minisblack", "planarconfig": "contig"}, "5 channels"),
        (np.zeros((64, 64, 4), np.uint8), {"photometric": "separated"}, "photometric"),
        (
            np.zeros((64, 64), np.uint8),
            {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)},
            "palette",
        ),
    ],
)
def test_tiffs_that_are_not_8_bit_rgb(tmp_path: Path, pixels: NDArray[np.generic], options: dict, found: str) -> None:  # type: ignore[type-arg]
    tifffile.imwrite(tmp_path / "slide.tiff", pixels, tile=(16, 16), metadata=None, **options)
    with pytest.raises(UnsupportedSlideError, match=f"8-bit brightfield RGB expected, found .*{found}"):
        open_slide(tmp_path / "slide.tiff")


@pytest.mark.parametrize("mode", ["L", "I;16", "CMYK", "1"])
def test_pictures_that_are_not_rgb(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (8, 8)).save(tmp_path / "tile", format="JPEG" if mode == "CMYK" else "PNG")
    with pytest.raises(UnsupportedSlideError, match="8-bit brightfield RGB expected"):
        open_slide(tmp_path / "tile")


def test_a_truncated_picture(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "tile.png")
    (tmp_path / "tile.png").write_bytes((tmp_path / "tile.png").read_bytes()[:5000])
    with pytest.raises(UnreadableSlideError, match="damaged picture"):
        open_slide(tmp_path / "tile.png")


def test_a_picture_like_a_bomb(tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(UnsupportedSlideError, match="tiled TIFF"):
        open_slide(tmp_path / "bomb.png")


def test_a_tiff_of_one_enormous_strip(tmp_path: Path) -> None:
    path = tmp_path / "flat.tiff"
    tifffile.imwrite(path, pink(8, 8), photometric="rgb", compression="deflate", metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tiff.pages.first.tags[name].overwrite(30_000)
    with pytest.raises(UnsupportedSlideError, match="30000 x 30000 px, which cannot be read in part"):
        open_slide(path)


class TestFallback:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        tifffile.imwrite(tmp_path / "slide.tiff", pink(), tile=(16, 16), photometric="rgb", compression="deflate")
        return tmp_path / "slide.tiff"

    def _refuse(self, monkeypatch: pytest.MonkeyPatch, *refusing: str) -> None:
        opened = opening._opened

        def refuse(name: opening.Name, path: Path, settings: SlideSettings) -> SlideReader:
            if name in refusing:
                raise NotForThisReader("not today")
            return opened(name, path, settings)

        monkeypatch.setattr(opening, "_opened", refuse)

    def test_it_is_told(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._refuse(monkeypatch, "tiff")
        slide = open_slide(path)
        assert slide.name == "openslide"
        assert slide.notices[-1] == "read with openslide, because others cannot (tiff: not today)"

    def test_when_nobody_can_every_reason_is_told(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._refuse(monkeypatch, "tiff", "openslide")
        with pytest.raises(UnsupportedSlideError, match=r"slide\.tiff: .*tiff: not today; openslide: not today"):
            open_slide(path)

    @pytest.mark.parametrize("reader", ["openslide", "tiffslide"])
    def test_a_reader_can_be_forced(self, path: Path, reader: str) -> None:
        slide = open_slide(path, SlideSettings.model_validate({"reader": reader}))
        assert slide.name == reader
        np.testing.assert_array_equal(slide.read(Region(0, 0, 64, 64)), pink())

    def test_a_forced_reader_is_not_replaced(self, tmp_path: Path) -> None:
        Image.fromarray(pink()).save(tmp_path / "tile.png")
        with pytest.raises(SlideError, match="openslide: unknown format"):
            open_slide(tmp_path / "tile.png", SlideSettings(reader="openslide"))


def field(*parts: tuple[float, tuple[int, int, int]]) -> MemorySlide:
    """Horizontal bands of colours, each a share of 64 rows."""
    pixels = np.concatenate([np.full((round(64 * share), 64, 3), colour, np.uint8) for share, colour in parts])
    return MemorySlide(pixels)


GLASS, PURPLE, BROWN, BLUE = (244, 244, 244), (110, 70, 150), (130, 85, 50), (130, 150, 190)


class TestBrightfield:
    def test_haematoxylin_and_eosin_raises_no_doubt(self) -> None:
        assert check_brightfield(field((0.5, GLASS), (0.3, PINK), (0.2, PURPLE))) == ()

    def test_glass_raises_no_doubt(self) -> None:
        assert check_brightfield(field((1, GLASS))) == ()

    def test_black_borders_are_not_fluorescence(self) -> None:
        assert check_brightfield(field((0.5, (0, 0, 0)), (0.3, PINK), (0.2, GLASS))) == ()

    def test_fluorescence(self) -> None:
        with pytest.raises(UnsupportedSlideError, match="dark background"):
            check_brightfield(field((0.8, (2, 1, 9)), (0.2, (20, 30, 220))))

    def test_shades_of_grey(self) -> None:
        with pytest.raises(UnsupportedSlideError, match="shades of grey"):
            check_brightfield(field((0.5, GLASS), (0.5, (120, 121, 119))))

    @pytest.mark.parametrize("parts", [((0.4, BLUE), (0.1, BROWN)), ((0.1, PINK), (0.4, BROWN))])
    def test_dab_is_refused_unless_any_stain_is_wanted(self, parts: tuple[tuple[float, tuple[int, int, int]]]) -> None:
        slide = field((0.5, GLASS), *parts)
        with pytest.raises(UnsupportedSlideError, match=r"IHC \(DAB\).*brown.*--any-stain"):
            check_brightfield(slide)
        (notice,) = check_brightfield(slide, any_stain=True)
        assert (notice.code, notice.level) == ("stain", "warning")
        assert "brown" in notice.text

    def test_pigment_in_pink_tissue_is_only_doubted(self) -> None:
        (notice,) = check_brightfield(field((0.5, GLASS), (0.4, PINK), (0.1, BROWN)))
        assert "may be an IHC" in notice.text

    def test_haematoxylin_alone_is_doubted(self) -> None:
        assert "does not look like H&E" in check_brightfield(field((0.5, GLASS), (0.5, BLUE)))[0].text

    def test_another_stain_is_a_notice_when_it_is_wanted(self) -> None:
        (notice,) = check_brightfield(field((0.8, (2, 1, 9)), (0.2, (20, 30, 220))), any_stain=True)
        assert "fluorescence" in notice.text

    def test_a_large_level_is_looked_at_in_patches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from wsi_ihc.slides import brightfield

        monkeypatch.setattr(brightfield, "WHOLE_PX", 1000)
        monkeypatch.setattr(brightfield, "PATCH_PX", 8)
        monkeypatch.setattr(brightfield, "PATCHES", 5)
        read: list[Region] = []

        class Recording(MemorySlide):
            def read(self, region: Region, level: int = 0) -> NDArray[np.uint8]:
                read.append(region)
                return super().read(region, level)

        assert check_brightfield(Recording(pink(200, 90))) == ()
        assert len(read) == 25
        assert all(region.top >= 0 and region.bottom <= 200 and region.right <= 90 for region in read)
