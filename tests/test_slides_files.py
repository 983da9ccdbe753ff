"""Which files make a slide; the file that is named is the one that is read; a damaged sibling ends nothing."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.test_slides_dicom_direct import JPEG, plane, write
from wsi_ihc.config import SlideSettings
from wsi_ihc.errors import UnreadableSlideError, UnsupportedSlideError
from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.slides import SlideReader, open_slide
from wsi_ihc.slides.dicom_direct import DirectDicomReader
from wsi_ihc.slides.dicom_series import series_of
from wsi_ihc.slides.files import file_states, slide_files, source_digest


def names(path: Path) -> list[str]:
    return [file.name for file in slide_files(path)]


def whole(slide: SlideReader) -> np.ndarray:
    return slide.read(Region(0, 0, *slide.levels[0].size))


class TestFilesOfASlide:
    def test_a_plain_file_is_itself(self, tmp_path: Path) -> None:
        (tmp_path / "a.svs").write_bytes(b"II*\0")
        assert names(tmp_path / "a.svs") == ["a.svs"]

    def test_mirax_has_its_folder(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        for name in ("a.mrxs", "a/Data1.dat", "a/Data0.dat", "b.mrxs"):
            (tmp_path / name).write_bytes(b"x")
        assert names(tmp_path / "a.mrxs") == ["a.mrxs", "Data0.dat", "Data1.dat"]
        assert names(tmp_path / "b.mrxs") == ["b.mrxs"]

    def test_hamamatsu_lists_its_pictures(self, tmp_path: Path) -> None:
        index = "[Virtual Microscope Specimen]\nImageFile=a.jpg\nImageFile(1,0)=a(1,0).jpg\nMapFile=gone.jpg\n"
        (tmp_path / "a.vms").write_text(index + "MacroImage=../secret.jpg\nOptimisationFile=a.opt\n")
        for name in ("a.jpg", "a(1,0).jpg", "a.opt", "other.jpg"):
            (tmp_path / name).write_bytes(b"x")
        (tmp_path.parent / "secret.jpg").write_bytes(b"x")
        assert names(tmp_path / "a.vms") == ["a.vms", "a(1,0).jpg", "a.jpg", "a.opt"]

    def test_dicom_is_its_series_by_folder_and_by_file(self, tmp_path: Path) -> None:
        write(tmp_path / "b.dcm", plane())
        write(tmp_path / "a.dcm", plane()[::2, ::2])
        assert names(tmp_path) == names(tmp_path / "b.dcm") == ["a.dcm", "b.dcm"]
        write(tmp_path / "other.dcm", plane(), SeriesInstanceUID="9.9")
        assert names(tmp_path / "a.dcm") == ["a.dcm", "b.dcm"]
        assert names(tmp_path / "other.dcm") == ["other.dcm"]

    def test_the_digest_and_the_states_notice_a_sibling(self, tmp_path: Path) -> None:
        write(tmp_path / "b.dcm", plane())
        write(tmp_path / "a.dcm", plane()[::2, ::2])
        digest, states = source_digest(tmp_path / "b.dcm"), file_states(tmp_path / "b.dcm")
        assert (source_digest(tmp_path), file_states(tmp_path)) == (digest, states)
        write(tmp_path / "a.dcm", 255 - plane()[::2, ::2])
        assert source_digest(tmp_path / "b.dcm") != digest
        assert file_states(tmp_path / "b.dcm") != states

    def test_a_file_that_is_written_again_has_another_state(self, tmp_path: Path) -> None:
        """Also where its bytes and its length are the same: somebody has been at it."""
        path = tmp_path / "a.svs"
        path.write_bytes(bytes(100))
        states = file_states(path)
        assert states == file_states(path)
        os.utime(path, ns=(states[0].modified_ns + 1, states[0].modified_ns + 1))
        assert file_states(path) != states

    def test_a_folder_that_is_no_slide_is_all_that_lies_in_it(self, tmp_path: Path) -> None:
        (tmp_path / "deep").mkdir()
        (tmp_path / "deep" / "x").write_bytes(b"x")
        assert names(tmp_path) == ["x"]


class TestTheNamedFileIsRead:
    @pytest.fixture
    def equals(self, tmp_path: Path) -> Path:
        """Three files of one size in one series, and a smaller level."""
        for shade, name in enumerate("abc"):
            write(tmp_path / f"{name}.dcm", (plane() // 4 + 40 * shade).astype(np.uint8), SOPInstanceUID=f"1.{shade}")
        write(tmp_path / "small.dcm", plane()[::2, ::2])
        return tmp_path

    @pytest.mark.parametrize("reader", [open_slide, lambda path: DirectDicomReader(path, SlideSettings())])
    def test_each_by_its_name(self, equals: Path, reader: object) -> None:
        assert callable(reader)
        means = [whole(reader(equals / f"{name}.dcm")).mean() for name in "abc"]
        np.testing.assert_allclose(np.diff(means), 40, atol=1)

    def test_the_others_are_told(self, equals: Path) -> None:
        assert any("b.dcm, c.dcm" in notice for notice in open_slide(equals / "a.dcm").notices)

    def test_the_middle_of_a_focal_stack(self, tmp_path: Path) -> None:
        for number, (depth, name) in enumerate([(4.0, "a"), (0.0, "b"), (2.0, "c")]):
            path = write(tmp_path / f"{name}.dcm", plane(), SOPInstanceUID=f"1.{number}", **_at_depth(depth))
            write(path.with_name(f"{name}2.dcm"), plane()[::2, ::2], SOPInstanceUID=f"2.{number}", **_at_depth(depth))
        assert [file.name for file in series_of(tmp_path).files] == ["c.dcm", "c2.dcm"]
        assert [file.name for file in series_of(tmp_path / "b2.dcm").files] == ["b.dcm", "b2.dcm"]

    def test_parts_of_a_concatenation_repeat_nothing(self, tmp_path: Path) -> None:
        for part in range(2):
            write(tmp_path / f"{part}.dcm", plane(), SOPInstanceUID=f"1.{part}", ConcatenationUID="1.5")
        assert not series_of(tmp_path).repeated


def _at_depth(depth: float) -> dict[str, object]:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    origin = Dataset()
    origin.ZOffsetInSlideCoordinateSystem = depth
    return {"TotalPixelMatrixOriginSequence": Sequence([origin])}


class TestOtherFilesInTheFolder:
    def test_a_damaged_sibling_leaves_the_others_readable(self, tmp_path: Path) -> None:
        write(tmp_path / "b.dcm", plane(), syntax=JPEG)
        small = write(tmp_path / "a.dcm", plane()[::2, ::2])
        small.write_bytes(small.read_bytes()[:-400])
        (tmp_path / "c.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 200)
        for path in (tmp_path, tmp_path / "b.dcm"):
            slide = open_slide(path)
            assert [level.size for level in slide.levels] == [Size(50, 70)]
            assert any("c.dcm" in notice for notice in slide.notices)
            assert any("a.dcm" in notice for notice in slide.notices)

    def test_half_the_resolution_is_no_substitute(self, tmp_path: Path) -> None:
        large = write(tmp_path / "b.dcm", plane())
        write(tmp_path / "a.dcm", plane()[::2, ::2])
        large.write_bytes(large.read_bytes()[:-400])
        with pytest.raises((UnreadableSlideError, UnsupportedSlideError), match=r"truncated|b\.dcm"):
            open_slide(tmp_path)

    @pytest.mark.parametrize("kind", ["1.2.840.10008.1.3.10", "1.2.840.10008.5.1.4.1.1.91.1"])
    def test_a_dicomdir_and_annotations_are_no_series_of_their_own(self, tmp_path: Path, kind: str) -> None:
        write(tmp_path / "b.dcm", plane())
        write(tmp_path / "DICOMDIR", plane(), SOPClassUID=kind, SeriesInstanceUID="7.7")
        np.testing.assert_array_equal(whole(open_slide(tmp_path)), whole(open_slide(tmp_path / "b.dcm")))

    def test_two_slides_in_a_folder_must_be_named(self, tmp_path: Path) -> None:
        write(tmp_path / "a.dcm", plane())
        write(tmp_path / "b.dcm", plane(), SeriesInstanceUID="7.7")
        with pytest.raises(UnsupportedSlideError, match="2 DICOM series; name one"):
            open_slide(tmp_path)
