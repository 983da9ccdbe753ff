"""DICOM frames by place and by coding, whatever the header leaves out; damage is named by its frame."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.sequence import Sequence
from pydicom.uid import VLWholeSlideMicroscopyImageStorage

from wsi_ihc.config import SlideSettings
from wsi_ihc.errors import UnreadableSlideError, UnsupportedSlideError
from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.slides import open_slide
from wsi_ihc.slides.dicom_direct import DirectDicomReader
from wsi_ihc.slides.reader import NotForThisReader

Plane = NDArray[np.uint8]
SETTINGS = SlideSettings()
TILE = Size(16, 24)
IMPLICIT, NATIVE, JPEG, JPEG2000, RLE = (f"1.2.840.10008.1.2{suffix}" for suffix in ("", ".1", ".4.50", ".4.90", ".5"))


def plane(height: int = 50, width: int = 70) -> Plane:
    """Smooth colours that JPEG keeps, no two places alike."""
    rows, columns = np.mgrid[:height, :width]
    channels = [200 - 2 * rows, 60 + 2 * columns, 120 + 60 * np.sin((rows + columns) / 23)]
    return np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8)


def tiles(pixels: Plane) -> list[Plane]:
    """Row by row; what reaches beyond the plane is black, as scanners have it."""
    height, width = (-(-side // tile) * tile for side, tile in zip(pixels.shape, TILE, strict=False))
    whole = np.zeros((height, width, 3), np.uint8)
    whole[: pixels.shape[0], : pixels.shape[1]] = pixels
    corners = product(range(0, height, TILE.height), range(0, width, TILE.width))
    return [whole[top : top + TILE.height, left : left + TILE.width] for top, left in corners]


def rle(tile: Plane) -> bytes:
    """PS3.5, annex G: three byte planes of literal runs."""
    runs = []
    for plane in np.moveaxis(tile, 2, 0):
        data = plane.tobytes()
        literal = b"".join(
            bytes([len(data[start : start + 128]) - 1]) + data[start : start + 128]
            for start in range(0, len(data), 128)
        )
        runs.append(literal + bytes(len(literal) % 2))
    starts = [64 + sum(map(len, runs[:index])) for index in range(3)]
    return struct.pack("<16I", 3, *starts, *[0] * 12) + b"".join(runs)


def encoded(tile: Plane, syntax: str, photometric: str) -> bytes:
    if photometric == "YBR_FULL":
        tile = cv2.cvtColor(tile, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]].astype(np.uint8)
    if syntax == JPEG:
        space = "RGB" if photometric == "RGB" else "YCBCR"
        return bytes(imagecodecs.jpeg8_encode(tile, level=98, colorspace="RGB", outcolorspace=space, subsampling="444"))
    if syntax == JPEG2000:
        return bytes(imagecodecs.jpeg2k_encode(tile, reversible=True, codecformat="j2k", mct=False))
    return rle(tile) if syntax == RLE else tile.tobytes()


def write(
    path: Path,
    pixels: Plane,
    *,
    syntax: str = JPEG,
    photometric: str = "YBR_FULL_422",
    order: list[int] | None = None,
    positions: list[tuple[int, int]] | None = None,
    frames: list[bytes] | None = None,
    table: str = "basic",
    **header: object,
) -> Path:
    """A whole-slide file without ImageType, which neither OpenSlide nor wsidicom takes."""
    cut = tiles(pixels)
    frames = frames or [encoded(cut[index], syntax, photometric) for index in order or range(len(cut))]
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = VLWholeSlideMicroscopyImageStorage, f"1.2.3.{pixels.shape[1]}"
    data.SeriesInstanceUID, data.Modality = "1.2.3", "SM"
    data.PatientName = "Nobody^Knows"
    data.TotalPixelMatrixRows, data.TotalPixelMatrixColumns = pixels.shape[:2]
    data.Rows, data.Columns, data.NumberOfFrames = *TILE, len(frames)
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, photometric, 0
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing = [0.0005, 0.0005]
    shared.PixelMeasuresSequence = Sequence([measures])
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    if positions:
        data.PerFrameFunctionalGroupsSequence = Sequence([_placed(*position) for position in positions])
    elif order is None:
        data.DimensionOrganizationType = "TILED_FULL"
    for name, value in header.items():
        setattr(data, name, value)
    if syntax in (NATIVE, IMPLICIT):
        data.PixelData = b"".join(frames)
        data["PixelData"].VR = "OW"
    elif table == "extended":
        data.PixelData, data.ExtendedOffsetTable, data.ExtendedOffsetTableLengths = encapsulate_extended(frames)
    else:
        fragments = 2 if table == "fragments" else 1
        data.PixelData = encapsulate(frames, fragments_per_frame=fragments, has_bot=table == "basic")
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(path, enforce_file_format=True)
    return path


def _placed(top: int, left: int) -> Dataset:
    place, group = Dataset(), Dataset()
    place.RowPositionInTotalImagePixelMatrix, place.ColumnPositionInTotalImagePixelMatrix = top + 1, left + 1
    group.PlanePositionSlideSequence = Sequence([place])
    return group


def direct(path: Path) -> DirectDicomReader:
    return DirectDicomReader(path, SETTINGS)


def whole(slide: DirectDicomReader, level: int = 0) -> Plane:
    return slide.read(Region(0, 0, *slide.levels[level].size), level)


def assert_near(pixels: Plane, truth: Plane, tolerance: int) -> None:
    assert pixels.shape == truth.shape
    assert np.abs(pixels.astype(int) - truth).max() <= tolerance


@pytest.fixture(params=["file", "folder"])
def slide(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DirectDicomReader]:
    write(tmp_path / "b.dcm", plane(), syntax=NATIVE, photometric="RGB")
    write(tmp_path / "a.dcm", plane()[::2, ::2], syntax=NATIVE, photometric="RGB")
    reader = direct(tmp_path if request.param == "folder" else tmp_path / "a.dcm")
    yield reader
    reader.close()


class TestContract:
    def test_the_files_of_a_series_are_levels(self, slide: DirectDicomReader) -> None:
        assert [level.size for level in slide.levels] == [Size(50, 70), Size(25, 35)]
        assert [level.downsample for level in slide.levels] == [1.0, 2.0]
        assert (slide.mpp, slide.properties) == (0.5, {"vendor": "dicom", "mpp-x": "0.5", "mpp-y": "0.5"})

    def test_every_window_has_the_plane_and_white_around_it(self, slide: DirectDicomReader) -> None:
        random = np.random.default_rng(2)
        for level, truth in enumerate([plane(), plane()[::2, ::2]]):
            canvas = np.pad(truth, ((40, 40), (40, 40), (0, 0)), constant_values=255)
            for _ in range(25):
                top, left, height, width = map(int, random.integers((-20, -20, 1, 1), (60, 60, 40, 40)))
                expected = canvas[top + 40 : top + 40 + height, left + 40 : left + 40 + width]
                seen = slide.read(Region(top, left, height, width), level)[: expected.shape[0], : expected.shape[1]]
                np.testing.assert_array_equal(seen, expected)

    def test_a_read_may_be_written_to(self, slide: DirectDicomReader) -> None:
        slide.read(Region(0, 0, *TILE))[...] = 7
        np.testing.assert_array_equal(whole(slide), plane())

    def test_many_threads_read_the_same_pixels(self, slide: DirectDicomReader) -> None:
        regions = [Region(top, top, 20, 20) for top in range(30)] * 3
        with ThreadPoolExecutor(8) as threads:
            for region, pixels in zip(regions, threads.map(slide.read, regions), strict=True):
                np.testing.assert_array_equal(pixels, plane()[region.slices])

    def test_a_closed_slide_is_one_clear_error(self, slide: DirectDicomReader) -> None:
        slide.close()
        slide.close()
        with pytest.raises(UnreadableSlideError, match="cannot be read any more"):
            slide.read(Region(0, 0, 8, 8))


class TestCodings:
    @pytest.mark.parametrize(
        ("syntax", "photometric", "tolerance"),
        [
            (JPEG, "RGB", 4),
            (JPEG, "YBR_FULL_422", 6),
            (JPEG2000, "RGB", 0),
            (JPEG2000, "YBR_FULL", 3),
            (RLE, "RGB", 0),
            (RLE, "YBR_FULL", 3),
            (NATIVE, "RGB", 0),
            (NATIVE, "YBR_FULL", 3),
            (IMPLICIT, "RGB", 0),
        ],
    )
    def test_colours(self, tmp_path: Path, syntax: str, photometric: str, tolerance: int) -> None:
        path = write(tmp_path / "slide.dcm", plane(), syntax=syntax, photometric=photometric)
        assert_near(whole(direct(path)), plane(), tolerance)

    def test_a_bare_jpeg_has_the_headers_colours(self, tmp_path: Path) -> None:
        """Without the marks of JFIF and Adobe only DICOM's header tells RGB from YCbCr."""
        bare = [_without_marks(encoded(tile, JPEG, "RGB")) for tile in tiles(plane())]
        assert_near(whole(direct(write(tmp_path / "slide.dcm", plane(), photometric="RGB", frames=bare))), plane(), 4)

    def test_a_jpeg_of_coarser_colours_is_not_rgb_whatever_the_header_says(self, tmp_path: Path) -> None:
        frames = [
            _without_marks(bytes(imagecodecs.jpeg8_encode(tile, level=98, subsampling="420")))
            for tile in tiles(np.full_like(plane(), (220, 150, 190)))
        ]
        slide = direct(write(tmp_path / "slide.dcm", plane(), photometric="RGB", frames=frames))
        assert_near(slide.read(Region(0, 0, 8, 8)), np.full((8, 8, 3), (220, 150, 190), np.uint8), 3)

    def test_colours_in_separate_planes(self, tmp_path: Path) -> None:
        frames = [np.moveaxis(tile, 2, 0).tobytes() for tile in tiles(plane())]
        options = {"syntax": NATIVE, "photometric": "RGB", "frames": frames, "PlanarConfiguration": 1}
        np.testing.assert_array_equal(whole(direct(write(tmp_path / "slide.dcm", plane(), **options))), plane())


def _without_marks(jpeg: bytes) -> bytes:
    """A JPEG less its application segments."""
    kept, position = jpeg[:2], 2
    while jpeg[position + 1] != 0xDA:
        length = 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
        kept += b"" if 0xE0 <= jpeg[position + 1] <= 0xEF else jpeg[position : position + length]
        position += length
    return kept + jpeg[position:]


class TestPlaces:
    @pytest.mark.parametrize("table", ["basic", "extended", "none", "fragments"])
    def test_frames_are_found_by_any_table_and_by_none(self, tmp_path: Path, table: str) -> None:
        path = write(tmp_path / "slide.dcm", plane(), syntax=JPEG2000, photometric="RGB", table=table)
        np.testing.assert_array_equal(whole(direct(path)), plane())

    def test_a_table_that_cannot_be_true_is_not_believed(self, tmp_path: Path) -> None:
        path = write(tmp_path / "slide.dcm", plane(), syntax=JPEG2000, photometric="RGB")
        data = path.read_bytes()
        table = data.rindex(b"\xe0\x7f\x10\x00OB") + 20
        path.write_bytes(data[:table] + bytes(range(48)) + data[table + 48 :])
        np.testing.assert_array_equal(whole(direct(path)), plane())

    def test_sparse_frames_lie_where_they_say_and_the_rest_is_white(self, tmp_path: Path) -> None:
        cut = [tile.tobytes() for tile in tiles(plane())]
        options = {"syntax": NATIVE, "photometric": "RGB", "frames": [cut[4], cut[0]]}
        pixels = whole(direct(write(tmp_path / "slide.dcm", plane(), positions=[(16, 24), (0, 0)], **options)))
        expected = np.full_like(plane(), 255)
        for part in (Region(0, 0, *TILE), Region(16, 24, *TILE)):
            expected[part.slices] = plane()[part.slices]
        np.testing.assert_array_equal(pixels, expected)

    def test_frames_beside_the_grid_are_refused(self, tmp_path: Path) -> None:
        cut = [tile.tobytes() for tile in tiles(plane())[:2]]
        options = {"syntax": NATIVE, "photometric": "RGB", "frames": cut, "positions": [(0, 0), (0, 23)]}
        with pytest.raises(NotForThisReader, match="frame 2 lies beside the grid"):
            direct(write(tmp_path / "slide.dcm", plane(), **options))

    @pytest.mark.parametrize("down", [False, True])
    def test_an_order_that_is_not_stated_is_seen_at_the_borders(self, tmp_path: Path, down: bool) -> None:
        order = np.arange(12).reshape(4, 3)  # 4 rows of 3 tiles
        frames = list(map(int, (order.T if down else order).ravel()))
        slide = direct(write(tmp_path / "slide.dcm", plane(), syntax=NATIVE, photometric="RGB", order=frames))
        np.testing.assert_array_equal(whole(slide), plane())
        assert ("down the columns" in " ".join(slide.notices)) == down

    def test_further_focal_planes_stay_unseen(self, tmp_path: Path) -> None:
        cut = [tile.tobytes() for tile in tiles(plane()) + tiles(255 - plane())]
        slide = direct(write(tmp_path / "slide.dcm", plane(), syntax=NATIVE, photometric="RGB", frames=cut))
        np.testing.assert_array_equal(whole(slide), plane())

    def test_labels_and_other_fields_are_no_levels(self, tmp_path: Path) -> None:
        options = {"syntax": NATIVE, "photometric": "RGB"}
        write(tmp_path / "slide.dcm", plane(), **options)
        write(tmp_path / "label.dcm", plane(100, 140), **options, SpecimenLabelInImage="YES")
        write(tmp_path / "macro.dcm", plane(200, 280), **options, ImageType=["ORIGINAL", "PRIMARY", "OVERVIEW", "NONE"])
        write(tmp_path / "other.dcm", plane(40, 20), **options)
        assert [level.size for level in direct(tmp_path).levels] == [Size(50, 70)]


class TestDamage:
    @pytest.mark.parametrize("syntax", [JPEG, JPEG2000, RLE])
    def test_a_damaged_frame_is_named_and_the_others_still_read(self, tmp_path: Path, syntax: str) -> None:
        path = write(tmp_path / "slide.dcm", plane(), syntax=syntax, photometric="RGB")
        data, fifth = path.read_bytes(), encoded(tiles(plane())[4], syntax, "RGB")
        path.write_bytes(data.replace(fifth, bytes(len(fifth))))
        slide = open_slide(path)
        slide.read(Region(0, 0, 16, 70))
        for _ in range(2):
            with pytest.raises(UnreadableSlideError, match=r"slide\.dcm: damaged at level 0, frame 5 of slide\.dcm"):
                slide.read(Region(0, 0, 50, 70))
        slide.read(Region(32, 0, 16, 70))

    def test_a_frame_that_stops_early_is_not_filled_with_grey(self, tmp_path: Path) -> None:
        path = write(tmp_path / "slide.dcm", plane())
        data, first = path.read_bytes(), encoded(tiles(plane())[0], JPEG, "YBR_FULL_422")
        path.write_bytes(data.replace(first, first[:200] + bytes(len(first) - 200)))
        with pytest.raises(UnreadableSlideError, match=r"frame 1 .*stop before their end"):
            direct(path).read(Region(0, 0, 1, 1))

    @pytest.mark.parametrize("table", ["basic", "extended", "none"])
    @pytest.mark.parametrize("syntax", [JPEG, NATIVE])
    def test_a_truncated_file_is_refused_at_once(self, tmp_path: Path, table: str, syntax: str) -> None:
        path = write(tmp_path / "slide.dcm", plane(), syntax=syntax, photometric="RGB", table=table)
        for share in (0.6, 0.97):
            with path.open("r+b") as stream:
                stream.truncate(int(share * os.path.getsize(path)))
            with pytest.raises(UnreadableSlideError, match="truncated"):
                direct(path)

    @pytest.mark.parametrize("field", ["Rows", "TotalPixelMatrixColumns", "PhotometricInterpretation"])
    def test_a_header_without_what_decoding_needs(self, tmp_path: Path, field: str) -> None:
        from pydicom import dcmread

        path = write(tmp_path / "slide.dcm", plane())
        data = dcmread(path)
        delattr(data, field)
        data.save_as(path)
        with pytest.raises(UnsupportedSlideError, match=r"slide\.dcm: cannot be read .*dicom-direct: its header"):
            open_slide(path)

    @pytest.mark.parametrize(
        ("header", "said"),
        [
            ({"NumberOfFrames": 2**31 - 1}, "frames in so small a file"),
            ({"NumberOfFrames": 11}, "12 items of pixel data found"),
            ({"TotalPixelMatrixColumns": 2**31}, "is no slide"),
            ({"TotalPixelMatrixColumns": 100_000}, "12 frames are too few"),
            ({"Rows": 65535, "Columns": 65535}, "65535 x 65535 px are not decoded"),
            ({"BitsAllocated": 16}, "8-bit brightfield RGB expected"),
            ({"ConcatenationUID": "1.2.4"}, "one part of a concatenation"),
            ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "not a whole-slide image"),
        ],
    )
    def test_numbers_that_cannot_be(self, tmp_path: Path, header: dict[str, object], said: str) -> None:
        path = write(tmp_path / "slide.dcm", plane(), table="none", **header)
        with pytest.raises((UnreadableSlideError, UnsupportedSlideError), match=said):
            direct(path)


def test_it_is_the_last_choice_and_says_why(tmp_path: Path) -> None:
    slide = open_slide(write(tmp_path / "slide.dcm", plane()))
    assert slide.name == "dicom-direct"
    assert "read with dicom-direct, because others cannot (openslide: " in slide.notices[-1]
    assert "ImageType is missing" in slide.notices[-1]
    assert str(tmp_path) not in slide.notices[-1]


@pytest.mark.data
def test_a_prostate_without_image_type_or_places(shared_data: Path) -> None:
    slide = open_slide(shared_data / "slides" / "dicom_prostate_pens_pathml" / "small_dicom.dcm")
    assert (slide.name, slide.levels[0].size, slide.mpp) == ("dicom-direct", Size(2638, 3236), None)
    assert "down the columns" in slide.notices[0]
    seam = slide.read(Region(1000, 1000, 500, 1000)).astype(int)  # tissue on both sides of x 1500
    steps = np.abs(np.diff(seam, axis=1)).mean(axis=(0, 2))
    assert steps[499] < 3 * np.median(steps)


@pytest.mark.data
@pytest.mark.parametrize("name", ["dicom_cmu1_small_region_napari", "dicom_sm_small/sm_image.dcm"])
def test_what_openslide_takes_has_the_same_pixels(shared_data: Path, name: str) -> None:
    reference, slide = open_slide(shared_data / "slides" / name), direct(shared_data / "slides" / name)
    assert (reference.name, reference.levels, reference.mpp) == ("openslide", slide.levels, slide.mpp)
    region = Region(0, 0, *(min(side, 1000) for side in slide.levels[0].size))
    np.testing.assert_array_equal(slide.read(region), reference.read(region))
