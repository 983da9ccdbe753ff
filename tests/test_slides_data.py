"""Real slides, and files that are broken in real ways."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from wsi_ihc.config import SlideSettings
from wsi_ihc.errors import SlideError, UnreadableSlideError, UnsupportedSlideError
from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.slides import check_brightfield, open_slide
from wsi_ihc.slides.dicom import DicomReader
from wsi_ihc.slides.dicom_series import series_files

pytestmark = pytest.mark.data

OPENSLIDE = SlideSettings(reader="openslide")


@pytest.fixture(scope="module")
def slides(shared_data: Path) -> Path:
    return shared_data / "slides"


@pytest.fixture(scope="module")
def cmu(slides: Path) -> Path:
    return slides / "aperio_svs_cmu1_small_region" / "CMU-1-Small-Region.svs"


def test_an_svs_decoded_directly_has_openslides_pixels(cmu: Path) -> None:
    direct, reference = open_slide(cmu), open_slide(cmu, OPENSLIDE)
    assert (direct.name, direct.mpp, direct.properties["objective"]) == ("tiff", 0.499, "20")
    assert direct.levels == reference.levels
    whole = Region(-10, -10, 2990, 2240)
    np.testing.assert_array_equal(direct.read(whole), reference.read(whole))


def test_jpeg_2000_differs_by_the_rounding_of_its_colours(slides: Path) -> None:
    path = slides / "aperio_svs_luna_1065626" / "1065626.svs"
    direct, reference = open_slide(path), open_slide(path, OPENSLIDE)
    assert [level.downsample for level in direct.levels] == [1.0, 4.0]
    region = Region(4300, 6000, 700, 900)  # tissue
    difference = direct.read(region).astype(int) - reference.read(region)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("path", ["tiff_packer_example/example.tif", "ihc_wsi_tif_crc/CRC-AI-15_X40_IHC.tif"])
def test_generic_tiffs_have_openslides_pixels_at_level_0(slides: Path, path: str) -> None:
    direct, reference = open_slide(slides / path), open_slide(slides / path, OPENSLIDE)
    assert direct.name == "tiff"
    assert direct.levels == reference.levels
    region = Region(100, 200, 500, 700)
    np.testing.assert_array_equal(direct.read(region), reference.read(region))


def test_dicom_by_folder_and_by_file(slides: Path, cmu: Path) -> None:
    folder = slides / "dicom_cmu1_small_region_napari"
    whole = open_slide(folder)
    assert (whole.name, whole.levels[0].size, whole.mpp) == ("openslide", Size(2967, 2220), 0.499)
    region = Region(1000, 500, 300, 300)
    pixels = whole.read(region)
    for file in series_files(folder):
        np.testing.assert_array_equal(open_slide(file).read(region), pixels)
    np.testing.assert_array_equal(DicomReader(folder, SlideSettings()).read(region), pixels)


def test_wsidicom_keeps_the_contract(slides: Path) -> None:
    file = slides / "dicom_sm_small" / "sm_image.dcm"
    fallback, reference = DicomReader(file, SlideSettings()), open_slide(file)
    assert fallback.levels == reference.levels
    for region in (Region(0, 0, 50, 50), Region(-5, 40, 20, 20), Region(60, 0, 3, 3), Region(13, 7, 11, 29)):
        assert np.abs(fallback.read(region).astype(int) - reference.read(region)).max() <= 1
    fallback.close()
    fallback.close()
    with pytest.raises(UnreadableSlideError, match=r"sm_image\.dcm: cannot be read any more, it was closed"):
        fallback.read(Region(0, 0, 50, 50))


def test_fluorescence_is_refused(slides: Path) -> None:
    slide = open_slide(slides / "hamamatsu_ndpi_fluorescence" / "test3-DAPI-2_387.ndpi")
    assert [level.downsample for level in slide.levels] == [2.0**power for power in range(7)]
    with pytest.raises(UnsupportedSlideError, match="dark background"):
        check_brightfield(slide)


@pytest.mark.parametrize(
    ("path", "doubted"),
    [
        ("aperio_svs_cmu1_small_region/CMU-1-Small-Region.svs", False),
        ("tiff_packer_example/example.tif", False),
        ("tiff_bracs_breast_he/BRACS_1640_N_3_cropped.tiff", False),
        ("ometiff_qupath_os1_os2/OS-1-detail.ome.tif", False),
        ("dicom_camelyon_google/multi_frame_jpeg_camelyon_challenge_image.dcm", False),
        ("ometiff_qupath_os1_os2/OS-2-ndpi.ome.tif", True),
        ("ihc_wsi_tif_crc/CRC-AI-15_X40_IHC.tif", True),
        ("aperio_svs_luna_1065626/1065626.svs", True),
    ],
)
def test_only_other_stains_are_doubted(slides: Path, path: str, doubted: bool) -> None:
    slide = open_slide(slides / path)
    assert bool(check_brightfield(slide, any_stain=True)) == doubted
    if doubted:
        with pytest.raises(UnsupportedSlideError, match=r"IHC \(DAB\).*--any-stain"):
            check_brightfield(slide)


_HE_FOLDERS = ("tiles/he_*/*", "pairs/*/he/*", "pairs/lung*/*He-les3*", "slides/*cmu*/*", "slides/*pens*/*")


def test_no_he_is_refused_nor_doubted_for_its_brown(shared_data: Path) -> None:
    """Pens of four colours, laboratories and scanners of two dozen: weak colour may be doubted, DAB never claimed."""
    paths = sorted(path for pattern in _HE_FOLDERS for path in shared_data.glob(pattern) if "ihc" not in path.name)
    looked_at = 0
    for path in paths:
        try:
            slide = open_slide(path)
        except SlideError:
            continue  # a text, a thumbnail, a table
        assert not any("DAB" in notice.text for notice in check_brightfield(slide)), path
        looked_at += 1
    assert looked_at > 50


SWEEP = """
import signal, sys
from pathlib import Path
from wsi_ihc.errors import WsiIhcError
from wsi_ihc.pyramid.geometry import Region
from wsi_ihc.slides import check_brightfield, open_slide

for path in sorted(path for path in Path(sys.argv[1]).rglob("*") if path.is_file()):
    signal.alarm(10)  # kills this process: a library that hangs does not listen to exceptions
    print(path.name, end=": ", flush=True)
    try:
        slide = open_slide(path)
        check_brightfield(slide)
        for number, level in enumerate(slide.levels):
            slide.read(Region(0, 0, *level.size), number)
        slide.close()
        print("read")
    except WsiIhcError as error:
        assert str(error).startswith(str(path)) and "\\n" not in str(error), error
        print("refused")
print("done")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGALRM")
def test_every_odd_file_ends_in_pixels_or_in_one_line(shared_data: Path) -> None:
    command = [sys.executable, "-X", "faulthandler", "-c", SWEEP, str(shared_data / "odd")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.stdout.endswith("done\n"), result.stdout[-500:] + result.stderr[-2000:]
    assert result.stderr == ""
    assert result.stdout.count("refused") >= 25


def test_info_tells_what_convert_would_use(cmu: Path) -> None:
    from wsi_ihc.cli.info import info

    told = CliRunner().invoke(info, [str(cmu)])
    assert told.exit_code == 0
    for word in ("aperio", "20x", "0.499 um/px", "2220 x 2967 px", "level 0 as it is"):
        assert word in told.output
