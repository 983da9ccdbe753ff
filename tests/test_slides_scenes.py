"""Scenes and planes: what OME-XML, TIFF, DICOM and NDPI say of them, which is read, and how another is chosen."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tifffile
from click.testing import CliRunner
from numpy.typing import NDArray

from tests.test_slides_dicom_direct import JPEG, NATIVE, encoded, tiles
from tests.test_slides_dicom_direct import plane as dicom_plane
from tests.test_slides_dicom_direct import write as write_dicom
from tests.test_slides_levels import reduced, tissue
from wsi_ihc.config import SlideSettings
from wsi_ihc.errors import UnsupportedSlideError
from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.slides import SlideReader, open_slide
from wsi_ihc.slides.dicom import _contents as dicom_contents
from wsi_ihc.slides.dicom_direct import DirectDicomReader
from wsi_ihc.slides.dicom_series import Series
from wsi_ihc.slides.ndpi import ndpi_focal_offsets
from wsi_ihc.slides.ome_xml import OmeImage, parse_ome
from wsi_ihc.slides.reader import Contents, NotForThisReader

Plane = NDArray[np.uint8]
OPTIONS = {"tile": (64, 64), "photometric": "rgb", "compression": "deflate", "metadata": None}


LAUGHS = '<!DOCTYPE a [<!ENTITY a "xxxxxxxxxx">'
for _one, _ten in zip("abcdefghi", "bcdefghij", strict=True):
    LAUGHS += f'<!ENTITY {_ten} "{f"&{_one};" * 10}">'
LAUGHS += "]><OME>&j;</OME>"


def image(size: tuple[int, ...], data: str, *, depth: int = 1, name: str = "", mpp: str = "0.5", more: str = "") -> str:
    return (
        f'<Image ID="i" Name="{name}"><Pixels SizeX="{size[1]}" SizeY="{size[0]}" SizeC="3" SizeZ="{depth}" SizeT="1"'
        f' PhysicalSizeX="{mpp}" PhysicalSizeY="{mpp}" DimensionOrder="XYCZT" {more}>'
        f'<Channel SamplesPerPixel="3"/>{data}</Pixels></Image>'
    )


def document(*images: str) -> str:
    return (
        f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{"".join(images)}</OME>'
    )


def write(path: Path, xml: str | None, pages: list[Plane], sub: dict[int, list[Plane]] | None = None) -> Path:
    sub = sub or {}
    with tifffile.TiffWriter(path) as tiff:
        for number, page in enumerate(pages):
            description = {"description": xml.encode()} if xml and number == 0 else {}
            tiff.write(page, subifds=len(sub.get(number, [])), **OPTIONS, **description)
            for level in sub.get(number, []):
                tiff.write(level, subfiletype=1, **OPTIONS)
    return path


def whole(slide: SlideReader, level: int = 0) -> Plane:
    return slide.read(Region(0, 0, *slide.levels[level].size), level)


def chosen(**settings: int) -> SlideSettings:
    return SlideSettings.model_validate(settings)


class TestOmeXml:
    def parsed(self, *images: str) -> tuple[OmeImage, ...]:
        document_ = parse_ome(document(*images), "a.ome.tif")
        assert document_
        return document_.images

    @pytest.mark.parametrize(
        ("data", "ifds"),
        [
            ("<TiffData/>", {0: 0, 1: 1, 2: 2}),
            ('<TiffData IFD="4" PlaneCount="3"/>', {0: 4, 1: 5, 2: 6}),
            ('<TiffData IFD="7" FirstZ="2"/><TiffData IFD="3" FirstZ="0"/>', {2: 7, 0: 3}),
            ('<TiffData IFD="2" FirstZ="1" PlaneCount="99"/>', {1: 2, 2: 3}),
            ('<TiffData IFD="0"><UUID FileName="b.ome.tif">urn:uuid:2</UUID></TiffData>', {}),
            ('<TiffData IFD="x" PlaneCount="-4"/>', {0: 0}),
            ("", {}),
        ],
    )
    def test_where_the_planes_lie(self, data: str, ifds: dict[int, int]) -> None:
        assert self.parsed(image((20, 30), data, depth=3))[0].ifds == ifds

    def test_channels_and_times_come_between(self) -> None:
        xml = image((20, 30), "<TiffData/>", depth=2).replace('SizeC="3"', 'SizeC="6"')
        assert self.parsed(xml)[0].ifds == {0: 0, 1: 2}
        assert self.parsed(xml.replace("XYCZT", "XYZCT"))[0].ifds == {0: 0, 1: 1}

    @pytest.mark.parametrize(
        ("unit", "value"),
        [("µm", 0.5), ("nm", 500.0), ("mm", 0.0005), ("cm", 0.00005), ("m", 5e-7), ("in", 0.5 / 25400)],
    )
    def test_units(self, unit: str, value: float) -> None:
        more = f'PhysicalSizeXUnit="{unit}" PhysicalSizeYUnit="{unit}"'
        assert self.parsed(image((9, 9), "", mpp=str(value), more=more))[0].mpp == pytest.approx((0.5, 0.5))

    def test_no_pixel_size(self) -> None:
        assert self.parsed(image((9, 9), "", more='PhysicalSizeXUnit="pixel"'))[0].mpp is None
        assert self.parsed("<Image/>")[0].size == Size(0, 0)

    def test_objective(self) -> None:
        instrument = '<Instrument><Objective ID="b" NominalMagnification="40.0"/></Instrument>'
        parsed = parse_ome(document(instrument))
        assert parsed
        assert parsed.objective == "40.0"

    @pytest.mark.parametrize("xml", ["", "no xml", "<OME", "<OME>" + "<a>" * 10])
    def test_no_xml(self, xml: str) -> None:
        assert parse_ome(xml) is None

    @pytest.mark.parametrize(
        "xml",
        [
            "<OME>" + "<Objective " * 70_000,
            document("<Image>" + "<a>" * 100_000 + "</a>" * 100_000 + "</Image>"),
            document(image((9, 9), '<TiffData PlaneCount="999999999"/>' * 5_000, depth=999_999_999)),
            LAUGHS,
        ],
        ids=["unclosed", "deep", "planes", "entities"],
    )
    def test_hostile_documents_end_soon(self, xml: str) -> None:
        started = time.monotonic()
        parse_ome(xml)
        assert time.monotonic() - started < 5


class TestScenes:
    @pytest.fixture
    def two(self, tmp_path: Path) -> Path:
        """Two scenes of one shape, the second half as large, the first with a SubIFD; and a label."""
        first, second, label = tissue(256, 320), tissue(128, 160, seed=5), tissue(300, 340, seed=6)
        xml = document(
            image((128, 160), '<TiffData IFD="1"/>', name="second"),
            image((256, 320), '<TiffData IFD="0"/>', name="first", mpp="0.25"),
            image((300, 340), '<TiffData IFD="2"/>', name="label"),
        )
        return write(tmp_path / "a.ome.tif", xml, [first, second, label], {0: [reduced(first, 2)]})

    def test_the_largest_is_read_and_the_other_told(self, two: Path) -> None:
        slide = open_slide(two)
        assert [level.size for level in slide.levels] == [Size(256, 320), Size(128, 160)]
        assert (slide.mpp, slide.contents.scene) == (0.25, 2)
        assert "scene 2 of 2 is read (320 x 256 px); --scene chooses another" in slide.notices
        np.testing.assert_array_equal(whole(slide, 1), reduced(tissue(256, 320), 2))

    def test_another_is_chosen(self, two: Path) -> None:
        slide = open_slide(two, chosen(scene=1))
        assert (len(slide.levels), slide.mpp) == (1, 0.5)
        np.testing.assert_array_equal(whole(slide), tissue(128, 160, seed=5))

    def test_one_that_is_not_there_is_one_line(self, two: Path) -> None:
        with pytest.raises(UnsupportedSlideError, match="scene 3 is wanted, the file has 2"):
            open_slide(two, chosen(scene=3))

    def test_images_of_another_shape_in_a_plain_tiff(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.tif", None, [tissue(600, 640), tissue(700, 520)])
        assert open_slide(path).levels[0].size == Size(600, 640)
        np.testing.assert_array_equal(whole(open_slide(path, chosen(scene=2))), tissue(700, 520))

    def test_info_lists_them(self, two: Path) -> None:
        from wsi_ihc.cli.info import info

        told = CliRunner().invoke(info, [str(two)]).output
        assert "scene 1    160 x 128 px  second" in told
        assert "scene 2    320 x 256 px  first  read" in told
        facts = json.loads(CliRunner().invoke(info, [str(two), "--scene", "1", "--json"]).output)
        assert (facts["scene"], [scene["name"] for scene in facts["scenes"]]) == (1, ["second", "first"])

    def test_a_size_that_contradicts_the_xml_is_told(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.ome.tif", document(image((512, 640), '<TiffData IFD="0"/>')), [tissue(256, 320)])
        assert any("says 640 x 512 px, the image has 320 x 256" in notice for notice in open_slide(path).notices)

    def test_a_broken_document_is_told(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.ome.tif", "<OME><Image></OME>", [tissue(64, 64)])
        assert any("OME-XML cannot be read" in notice for notice in open_slide(path).notices)


class TestPlanes:
    @pytest.fixture
    def stack(self) -> list[Plane]:
        return [(tissue(128, 160) // 2 + shade).astype(np.uint8) for shade in (0, 40, 80)]

    def test_the_middle_of_a_z_stack(self, tmp_path: Path, stack: list[Plane]) -> None:
        path = write(tmp_path / "a.ome.tif", document(image((128, 160), "<TiffData/>", depth=3)), stack)
        slide = open_slide(path)
        np.testing.assert_array_equal(whole(slide), stack[1])
        assert "plane 2 of 3 is read; --plane chooses another" in slide.notices
        for plane in (1, 3):
            np.testing.assert_array_equal(whole(open_slide(path, chosen(plane=plane))), stack[plane - 1])
        with pytest.raises(UnsupportedSlideError, match="plane 4 is wanted, the file has 3"):
            open_slide(path, chosen(plane=4))

    @pytest.mark.parametrize("together", [True, False], ids=["levels after planes", "each with its levels"])
    def test_images_of_one_size_in_a_plain_tiff(self, tmp_path: Path, stack: list[Plane], together: bool) -> None:
        halves = [reduced(plane, 2) for plane in stack]
        pairs = [page for pair in zip(stack, halves, strict=True) for page in pair]
        path = write(tmp_path / "a.tif", None, [*stack, *halves] if together else pairs)
        slide = open_slide(path)
        np.testing.assert_array_equal(whole(slide), stack[1])
        np.testing.assert_array_equal(whole(slide, 1), halves[1])
        np.testing.assert_array_equal(whole(open_slide(path, chosen(plane=3)), 1), halves[2])

    def test_planes_in_one_dicom_file(self, tmp_path: Path) -> None:
        shades = [(dicom_plane(48, 72) // 2 + shade).astype(np.uint8) for shade in (0, 40, 80)]
        frames = [encoded(tile, JPEG, "YBR_FULL_422") for shade in shades for tile in tiles(shade)]
        path = write_dicom(tmp_path / "a.dcm", shades[0], frames=frames, TotalPixelMatrixFocalPlanes=3)
        means = [whole(open_slide(path, chosen(plane=plane))).mean() for plane in (1, 2, 3)]
        np.testing.assert_allclose(np.diff(means), 40, atol=1)
        assert whole(open_slide(path)).mean() == means[1]
        assert "plane 2 of 3 is read; --plane chooses another" in open_slide(path).notices

    def test_wsidicom_is_asked_for_the_plane(self) -> None:
        series = Series((Path("a.dcm"),))
        assert dicom_contents(series, [0.0, 2.0, 4.0], SlideSettings()) == Contents(planes=3, plane=2)
        assert dicom_contents(series, [0.0, 2.0, 4.0], chosen(plane=3)) == Contents(planes=3, plane=3)
        with pytest.raises(NotForThisReader, match="3 planes"):
            dicom_contents(series, [0.0, 2.0, 4.0], chosen(plane=4))
        assert dicom_contents(Series((), planes=5, plane=4), [0.0], SlideSettings()) == Contents(planes=5, plane=4)

    def test_planes_by_their_depth(self, tmp_path: Path) -> None:
        shades = [(dicom_plane() // 2 + shade).astype(np.uint8) for shade in (80, 0, 40)]
        cut = [tile.tobytes() for shade in shades for tile in tiles(shade)]
        places = [(row * 16, column * 24) for row in range(4) for column in range(3)] * 3
        path = write_dicom(
            tmp_path / "a.dcm", dicom_plane(), syntax=NATIVE, photometric="RGB", frames=cut, positions=places
        )

        header = pydicom.dcmread(path)
        for number, group in enumerate(header.PerFrameFunctionalGroupsSequence):
            group.PlanePositionSlideSequence[0].ZOffsetInSlideCoordinateSystem = float((4.0, 0.0, 2.0)[number // 12])
        header.save_as(path)
        for plane, index in ((1, 1), (2, 2), (3, 0)):
            np.testing.assert_array_equal(whole(DirectDicomReader(path, chosen(plane=plane))), shades[index])
        np.testing.assert_array_equal(whole(DirectDicomReader(path, SlideSettings())), shades[2])

    def test_planes_of_an_ndpi(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"  # by a name with .ndpi tifffile would look for offsets of 64 bits
        with tifffile.TiffWriter(path) as tiff:
            for offset in (-2000, 0, 2000):
                tags = [
                    (271, 2, 9, "Hamamatsu", True),
                    (65420, 4, 1, 1, True),
                    (65421, 11, 1, 20.0, True),
                    (65424, 9, 1, offset, True),
                ]
                tiff.write(tissue(64, 64), photometric="rgb", metadata=None, extratags=tags, software="NDP.scan")
        assert ndpi_focal_offsets(path) == (-2000, 0, 2000)
        assert ndpi_focal_offsets(tmp_path) == ()
