"""Nothing that a file says is believed before it is bounded; nothing hostile takes long, or much memory."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import stained_island, write_slide
from tests.test_slides import tissue, write_tiff
from tests.test_slides_dicom_direct import JPEG, encoded, tiles
from tests.test_slides_dicom_direct import plane as dicom_plane
from tests.test_slides_dicom_direct import write as write_dicom
from wsi_ihc.config import SlideSettings
from wsi_ihc.errors import UnreadableSlideError, UnsupportedSlideError
from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.slides import check_brightfield, open_slide
from wsi_ihc.slides.assembly import TileCache, on_white
from wsi_ihc.slides.coded_size import check_coded_size, coded_size
from wsi_ihc.slides.jpeg_damage import check_jpeg

Plane = NDArray[np.uint8]
ENCODERS: dict[str, Callable[[Plane], bytes]] = {
    "jpeg": lambda pixels: imagecodecs.jpeg8_encode(pixels),
    "jpeg2000": lambda pixels: imagecodecs.jpeg2k_encode(pixels, codecformat="j2k"),
    "jp2": lambda pixels: imagecodecs.jpeg2k_encode(pixels, codecformat="jp2"),
    "jpegxl": lambda pixels: imagecodecs.jpegxl_encode(pixels),
    "jpegxl in boxes": lambda pixels: imagecodecs.jpegxl_encode(pixels, usecontainer=True),
    "webp": lambda pixels: imagecodecs.webp_encode(pixels),
    "webp without loss": lambda pixels: imagecodecs.webp_encode(pixels, lossless=True),
    "webp with alpha": lambda pixels: imagecodecs.webp_encode(np.dstack([pixels, pixels[..., :1]])),
    "png": lambda pixels: imagecodecs.png_encode(pixels),
}


class TestCodedSize:
    @pytest.mark.parametrize("name", ENCODERS)
    @pytest.mark.parametrize("size", [(64, 48), (257, 31), (300, 1000)])
    def test_every_codec(self, name: str, size: tuple[int, int]) -> None:
        pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
        assert coded_size(bytes(ENCODERS[name](pixels))) == Size(*size)

    @pytest.mark.parametrize("name", ENCODERS)
    def test_damaged_headers_raise_nothing(self, name: str) -> None:
        data = bytes(ENCODERS[name](tissue(64, 64)))
        random = np.random.default_rng(1)
        for _ in range(300):
            mutated = bytearray(data[: int(random.integers(4, len(data)))])
            for at in random.integers(min(len(mutated), 64), size=4):
                mutated[at] = int(random.integers(256))
            size = coded_size(bytes(mutated))
            assert size is None or (isinstance(size, Size) and min(size) >= 0)

    def test_padded_tiles_pass_and_others_do_not(self) -> None:
        tile = bytes(imagecodecs.jpeg8_encode(tissue(272, 272)))
        check_coded_size(tile, Size(256, 256))
        check_coded_size(b"no picture", Size(256, 256))
        with pytest.raises(ValueError, match="256 x 256 px expected, its own header says 3000 x 3000"):
            check_coded_size(bytes(imagecodecs.jpeg8_encode(np.zeros((3000, 3000, 3), np.uint8))), Size(256, 256))

    def test_components_of_jpeg_2000_count(self) -> None:
        data = bytearray(imagecodecs.jpeg2k_encode(tissue(64, 64), codecformat="j2k"))
        data[40:42] = struct.pack(">H", 16_000)
        with pytest.raises(ValueError, match="its own header says"):
            check_coded_size(bytes(data), Size(64, 64))


def with_other_size(data: bytes, name: str) -> bytes:
    """The header of the picture says 30,000 x 30,000 px."""
    changed = bytearray(data)
    if name == "jpeg":
        frame = changed.index(b"\xff\xc0")
        changed[frame + 5 : frame + 9] = struct.pack(">HH", 30_000, 30_000)
    elif name == "jpeg2000":
        changed[8:16] = struct.pack(">II", 30_000, 30_000)
    else:
        changed[:16] = b"\xff\x0a" + (0 | (2 << 1) | (29_999 << 3) | (1 << 21)).to_bytes(8, "little") + bytes(6)
    return bytes(changed)


class TestTiles:
    @pytest.mark.parametrize(("name", "compression"), [("jpeg", 7), ("jpeg2000", 34712), ("jpegxl", 50002)])
    def test_a_tile_that_says_it_is_huge_is_damage(self, tmp_path: Path, name: str, compression: int) -> None:
        tile = with_other_size(bytes(ENCODERS[name](tissue(256, 256))), name)
        assert coded_size(tile) == Size(30_000, 30_000)
        options = {"tile": (256, 256), "photometric": "rgb", "compression": compression, "metadata": None}
        path = tmp_path / "a.tiff"
        tifffile.imwrite(path, iter([tile] * 4), shape=(512, 512, 3), dtype=np.uint8, **options)
        started = time.monotonic()
        with pytest.raises(UnreadableSlideError, match="its own header says 30000 x 30000"):
            open_slide(path).read(Region(0, 0, 512, 512))
        assert time.monotonic() - started < 5

    def test_a_dicom_frame_too(self, tmp_path: Path) -> None:
        frames = [with_other_size(encoded(tile, JPEG, "YBR_FULL_422"), "jpeg") for tile in tiles(dicom_plane())]
        with pytest.raises((UnreadableSlideError, UnsupportedSlideError), match="its own header says 30000 x 30000"):
            open_slide(write_dicom(tmp_path / "a.dcm", dicom_plane(), frames=frames)).read(Region(0, 0, 9, 9))

    def test_bytes_of_0xff_after_a_tile_are_no_damage(self, tmp_path: Path) -> None:
        tile = bytes(imagecodecs.jpeg8_encode(tissue(64, 64))) + b"\xff" * 40
        options = {"tile": (64, 64), "photometric": "ycbcr", "compression": "jpeg", "subsampling": (2, 2)}
        tifffile.imwrite(tmp_path / "a.tiff", iter([tile]), shape=(64, 64, 3), dtype=np.uint8, **options)
        assert open_slide(tmp_path / "a.tiff").read(Region(0, 0, 64, 64)).std() > 10

    def test_a_picture_in_jp2_that_says_it_is_huge(self, tmp_path: Path) -> None:
        data = bytearray(imagecodecs.jpeg2k_encode(tissue(64, 64), codecformat="jp2"))
        start = data.index(b"\xff\x4f\xff\x51")
        data[start + 8 : start + 16] = struct.pack(">II", 60_000, 60_000)
        (tmp_path / "a.jp2").write_bytes(data)
        with pytest.raises(UnsupportedSlideError, match="too large"):
            open_slide(tmp_path / "a.jp2")


class TestDamagedJpeg:
    @pytest.mark.parametrize("subsampling", ["444", "422", "420"])
    def test_many_flipped_bits_are_found(self, subsampling: str) -> None:
        """At least a third of those that can be seen; a sound tile passes."""
        sound = bytes(imagecodecs.jpeg8_encode(stained_island(256, 256), level=80, subsampling=subsampling))
        check_jpeg(sound)
        truth = imagecodecs.jpeg8_decode(sound).astype(int)
        random, found, visible = np.random.default_rng(2), 0, 0
        for _ in range(60):
            data = bytearray(sound)
            for at in random.integers(len(data) // 4, len(data) - 2, 3):
                data[at] ^= 1 << int(random.integers(8))
            try:
                changed = imagecodecs.jpeg8_decode(bytes(data))
            except imagecodecs.Jpeg8Error:
                continue
            if np.abs(changed - truth).max() > 16:
                visible += 1
                try:
                    check_jpeg(bytes(data))
                except ValueError:
                    found += 1
        assert visible > 40
        assert found > visible / 3

    def test_bytes_left_over_are_a_habit_where_neighbours_have_them(self) -> None:
        sound = bytes(imagecodecs.jpeg8_encode(stained_island(64, 64)))
        left_over = sound[:-2] + b"\x11" * 40 + sound[-2:]
        check_jpeg(left_over, others=[sound, left_over])
        for others in ((), [sound]):
            with pytest.raises(ValueError, match="extraneous bytes"):
                check_jpeg(left_over, others=others)

    def test_tables_and_colours_of_every_kind_pass(self, tmp_path: Path) -> None:
        pixels = stained_island(128, 128)
        for photometric in ("rgb", "ycbcr"):
            path = tmp_path / f"{photometric}.tiff"
            tifffile.imwrite(path, pixels, tile=(64, 64), photometric=photometric, compression="jpeg")
            assert open_slide(path).read(Region(0, 0, 128, 128)).std() > 10
        check_jpeg(bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels[..., 0]))))
        check_jpeg(b"no JPEG at all")

    def test_a_damaged_tile_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tiff"
        tifffile.imwrite(path, stained_island(256, 256), tile=(256, 256), photometric="rgb", compression="jpeg")
        with tifffile.TiffFile(path) as tiff:
            start, count = tiff.pages.first.dataoffsets[0], tiff.pages.first.databytecounts[0]
        data = bytearray(path.read_bytes())
        del data[start + count // 2 : start + count // 2 + 40]
        data[start + count - 40 : start + count - 40] = bytes(40)  # behind the end mark
        path.write_bytes(data)
        with pytest.raises(UnreadableSlideError, match=r"a\.tiff: damaged at level 0, x 0, y 0 \(the JPEG data"):
            open_slide(path).read(Region(0, 0, 9, 9))


class TestStrips:
    def test_one_strip_is_decoded_once(self, tmp_path: Path) -> None:
        """However many patches are looked at, by however many threads, and whatever the cache holds."""
        path = write_tiff(tmp_path / "flat.tiff", [stained_island(1500, 2800)], tile=None, rowsperstrip=1500)
        slide = open_slide(path, SlideSettings(cache_mb=1))
        plane = slide._planes[0]  # type: ignore[attr-defined]
        decoded = []
        original = plane.decode

        def counting(*given: object, **named: object) -> object:
            decoded.append(1)
            return original(*given, **named)

        object.__setattr__(plane, "decode", counting)
        check_brightfield(slide)
        assert len(decoded) == 1

    def test_a_tile_larger_than_the_cache_stays_until_the_next(self) -> None:
        cache, decoded = TileCache(100, 300), []

        def get(key: str) -> None:
            cache.get(key, lambda: decoded.append(key) or np.zeros((10, 10, 3), np.uint8))

        for key in "aabba":
            get(key)
        assert decoded == ["a", "b", "a"]

    def test_a_strip_of_400_million_pixels_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tiff"
        tifffile.imwrite(path, tissue(64, 64), rowsperstrip=64, photometric="rgb", compression="deflate")
        with tifffile.TiffFile(path, mode="r+b") as tiff:
            for tag, value in ((256, 20_000), (257, 20_000), (278, 20_000)):
                tiff.pages.first.tags[tag].overwrite(value, dtype="I")
        with pytest.raises(UnsupportedSlideError, match="convert it to a tiled TIFF first"):
            open_slide(path)


class TestChains:
    def chain(self, path: Path, count: int, *, circle: bool) -> Path:
        """A slide, then ``count`` directories without content; the last one leads back to the second."""
        write_slide(path, stained_island(300, 400), levels=1)
        data = bytearray(path.read_bytes())
        with tifffile.TiffFile(path) as tiff:
            offset = tiff.pages.first.offset
            (tags,) = struct.unpack_from("<H", data, offset)
        link, start = offset + 2 + 12 * tags, len(data)
        entry = struct.pack("<HHHII", 1, 256, 4, 1, 0)
        for number in range(count):
            last = number == count - 1
            following = (start if circle else 0) if last else start + (number + 1) * 18
            data += entry + struct.pack("<I", following)
        struct.pack_into("<I", data, link, start)
        path.write_bytes(data)
        return path

    @pytest.mark.parametrize("reader", ["auto", "tiffslide"])
    @pytest.mark.parametrize(("count", "circle"), [(3, True), (150, True), (50_000, False)])
    def test_circles_and_endless_chains_end(self, tmp_path: Path, count: int, circle: bool, reader: str) -> None:
        path = self.chain(tmp_path / "a.tiff", count, circle=circle)
        started = time.monotonic()
        if reader == "auto":
            assert any("list of pages is a circle" in notice for notice in open_slide(path).notices)
        else:
            with pytest.raises(UnsupportedSlideError, match="list of pages is a circle"):
                open_slide(path, SlideSettings(reader="tiffslide"))
        assert time.monotonic() - started < 5


def test_a_size_that_openslide_makes_up_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openslide

    class Overflowing(openslide.OpenSlide):
        level_dimensions = ((512, -(2**63)),)

    path = write_tiff(tmp_path / "slide.tiff", [tissue()])
    monkeypatch.setattr(openslide, "OpenSlide", Overflowing)
    with pytest.raises(UnsupportedSlideError, match="is no slide; the file is damaged"):
        open_slide(path, SlideSettings(reader="openslide"))


class TestFourthChannel:
    def slide(self, folder: Path, fourth: int, kind: int, pixels: Plane) -> Path:
        opacity = np.full((*pixels.shape[:2], 1), fourth, np.uint8)
        return write_tiff(folder / "a.tiff", [np.dstack([pixels, opacity])], extrasamples=[kind])

    def test_one_that_is_not_named_is_not_opacity(self, tmp_path: Path) -> None:
        slide = open_slide(self.slide(tmp_path, 0, 0, tissue()))
        np.testing.assert_array_equal(slide.read(Region(0, 0, 100, 131)), tissue())
        assert any("fourth channel" in notice for notice in slide.notices)

    def test_colours_are_not_multiplied_twice(self, tmp_path: Path) -> None:
        multiplied = (tissue().astype(int) * 128 // 255).astype(np.uint8)
        slide = open_slide(self.slide(tmp_path, 128, 1, multiplied))
        np.testing.assert_array_equal(slide.read(Region(0, 0, 100, 131)), multiplied + 127)

    @pytest.mark.parametrize(("fourth", "value"), [("alpha", 177), ("premultiplied", 227), ("unknown", 100)])
    def test_on_white(self, fourth: str, value: int) -> None:
        pixel = np.array([[[100, 100, 100, 128]]], np.uint8)
        assert on_white(pixel, fourth)[0, 0, 0] == value  # type: ignore[arg-type]


class TestFormats:
    @pytest.mark.parametrize("suffix", [".isyntax", ".vsi", ".kfb", ".lif"])
    def test_one_that_nothing_reads_is_named(self, tmp_path: Path, suffix: str) -> None:
        (tmp_path / f"a{suffix}").write_bytes(b"II*\0" + bytes(600))
        with pytest.raises(UnsupportedSlideError, match="format that is not supported; export it as"):
            open_slide(tmp_path / f"a{suffix}")

    def test_isyntax_under_another_name(self, tmp_path: Path) -> None:
        (tmp_path / "a.tiff").write_bytes(b'<DataObject ObjectType="DPUfsImport">\r\n\t<Attribute Name="X">1' * 9)
        with pytest.raises(UnreadableSlideError, match="Philips iSyntax"):
            open_slide(tmp_path / "a.tiff")

    def test_a_picture_with_a_palette_is_as_before(self, tmp_path: Path) -> None:
        pixels = cv2.resize(tissue(40, 40), (700, 1200), interpolation=cv2.INTER_NEAREST)
        Image.fromarray(pixels).quantize(64).save(tmp_path / "a.png")
        expected = np.array(Image.open(tmp_path / "a.png").convert("RGB"))
        np.testing.assert_array_equal(open_slide(tmp_path / "a.png").read(Region(0, 0, 1200, 700)), expected)

    def test_our_own_output_is_no_input(self, tmp_path: Path) -> None:
        from wsi_ihc.slides.ome_xml import OWN_NAMESPACE

        xml = '<OME><Image><Pixels SizeX="131" SizeY="100"><TiffData IFD="0"/></Pixels></Image><StructuredAnnotations>'
        xml += f'<MapAnnotation Namespace="{OWN_NAMESPACE}1"><Value/></MapAnnotation></StructuredAnnotations></OME>'
        path = tmp_path / "a.ome.tiff"
        tifffile.imwrite(path, tissue(), tile=(32, 48), photometric="rgb", description=xml, metadata=None)
        with pytest.raises(UnsupportedSlideError, match="found a virtual stain, an output of wsi-ihc"):
            check_brightfield(open_slide(path))


def test_an_output_carries_the_namespace_by_which_it_is_known() -> None:
    from wsi_ihc.output.ometiff.omexml import PROVENANCE_NAMESPACE
    from wsi_ihc.slides.ome_xml import OWN_NAMESPACE

    assert PROVENANCE_NAMESPACE.startswith(OWN_NAMESPACE)


def test_a_reduced_copy_alone_is_told(tmp_path: Path) -> None:
    description = "Aperio Image Library v12 \r\n46000x32914 [0,100 46000x32814] (256x256) -> 11500x8203 JPEG|MPP = 0.25"
    path = write_tiff(tmp_path / "a.svs", [tissue()], description=description)
    assert any("a reduced copy of 46000 x 32914 px" in notice for notice in open_slide(path).notices)
    path = write_tiff(tmp_path / "b.tiff", [tissue()], subfiletype=1)
    assert any("says that it is a reduced copy" in notice for notice in open_slide(path).notices)
