"""What a search of folders takes, and that it names everything else that could be a slide."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.test_batch import touch
from wsi_ihc.batch import LeftOut, gather
from wsi_ihc.batch.formats import SUFFIXES, could_be_slide, why_not_taken
from wsi_ihc.batch.naming import unusable
from wsi_ihc.cli import _run
from wsi_ihc.config import ConversionSettings
from wsi_ihc.errors import SettingsError
from wsi_ihc.output.names import longest_stem, output_stem
from wsi_ihc.output.ometiff.omexml import PROVENANCE_NAMESPACE

DEFAULTS = ConversionSettings()
OUR_OUTPUT = b"II+\0" + bytes(400) + PROVENANCE_NAMESPACE.encode()
DICOM = bytes(128) + b"DICM"


def search(folder: Path, **options: bool | tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    """Names of the slides, and the reason for each name that was left out, both relative to ``folder``."""
    cohort = gather([folder], DEFAULTS, **options)
    taken = [os.path.relpath(entry.slide, folder) for entry in cohort.entries]
    return taken, {os.path.relpath(each.name, folder): each.reason for each in cohort.left_out}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.qptiff", "not read"),
        ("a.VSI", "Olympus"),
        ("a.isyntax", "Philips"),
        ("a.kfb", "not read"),
        ("photo.JPG", "a picture"),
        ("a.png", "--mpp"),
        ("slides.zip", "archive"),
        ("a.svs.gz", "archive"),
        ("a.svs.part", "has not ended"),
        ("a.ndpi.crdownload", "has not ended"),
        ("a.svs.bak", "old copy"),
        (".a.svs", "hidden"),
    ],
)
def test_what_could_be_a_slide_and_is_not_taken_is_named(name: str, reason: str, tmp_path: Path) -> None:
    touch(tmp_path / "good.svs")
    touch(tmp_path / name)
    taken, left_out = search(tmp_path)
    assert taken == ["good.svs"]
    assert list(left_out) == [name]
    assert reason in left_out[name]
    assert search(tmp_path, exclude=(name,)) == (["good.svs"], {})


@pytest.mark.parametrize(
    "name", ["notes.txt", "a.geojson", "._a.svs", "Thumbs.db", "desktop.ini", "a.csv", "a_ihc.json"]
)
def test_what_is_no_slide_is_passed_over(name: str, tmp_path: Path) -> None:
    touch(tmp_path / "good.svs")
    touch(tmp_path / name)
    assert search(tmp_path) == (["good.svs"], {})


def test_links_pipes_and_loops(tmp_path: Path) -> None:
    touch(tmp_path / "a.svs")
    (tmp_path / "b.svs").symlink_to("a.svs")
    (tmp_path / "gone.svs").symlink_to("nowhere.svs")
    (tmp_path / "self.svs").symlink_to("self.svs")
    os.mkfifo(tmp_path / "pipe.svs")
    os.mkfifo(tmp_path / "pipe.txt")
    touch(tmp_path / "deep" / "c.svs")
    (tmp_path / "deep" / "up").symlink_to(tmp_path)
    (tmp_path / "zz").symlink_to(tmp_path / "deep")
    taken, left_out = search(tmp_path, recursive=True)
    assert taken == ["a.svs", "b.svs", "deep/c.svs"]
    assert set(left_out) == {"gone.svs", "self.svs", "pipe.svs", "deep/up", "zz"}
    assert "missing" in left_out["gone.svs"]
    assert "pipe" in left_out["pipe.svs"]
    assert "the same folder" in left_out["deep/up"]


def test_a_folder_that_is_not_searched_is_named_when_it_could_hold_slides(tmp_path: Path) -> None:
    for name in ("a.svs", "deep/er/b.svs", "papers/notes.txt", "export/x.vsi"):
        touch(tmp_path / name)
    taken, left_out = search(tmp_path)
    assert taken == ["a.svs"]
    assert set(left_out) == {"deep", "export"}
    assert "--recursive" in left_out["deep"]
    taken, left_out = search(tmp_path, recursive=True)
    assert taken == ["a.svs", "deep/er/b.svs"]
    assert set(left_out) == {"export/x.vsi"}


def test_our_own_outputs_are_known_by_what_is_in_them(tmp_path: Path) -> None:
    touch(tmp_path / "a.svs")
    touch(tmp_path / "any name.tiff", OUR_OUTPUT)
    touch(tmp_path / "a_ihc.ome.tiff", OUR_OUTPUT)
    touch(tmp_path / "real_ihc.ome.tiff", b"II*\0")
    touch(tmp_path / "b_ihc.ome.tiff.part")
    touch(tmp_path / "b_ihc.ome.tiff.blocks.zarr" / "zarr.json")
    assert search(tmp_path) == (["a.svs", "real_ihc.ome.tiff"], {})


def test_parts_of_other_slides_are_no_slides(tmp_path: Path) -> None:
    touch(tmp_path / "m.mrxs")
    touch(tmp_path / "m" / "Data0.dat")
    touch(tmp_path / "m" / "label.jpg")
    touch(tmp_path / "h.vms", b"[Virtual Microscope Specimen]\nImageFile=h.jpg\n")
    touch(tmp_path / "h.jpg")
    assert search(tmp_path) == (["h.vms", "m.mrxs"], {})


def test_the_index_of_a_dicom_export_is_no_slide(tmp_path: Path) -> None:
    touch(tmp_path / "DICOMDIR", DICOM)
    touch(tmp_path / "a.svs")
    touch(tmp_path / "PAT1" / "IMG1", DICOM)
    assert search(tmp_path) == (["PAT1", "a.svs"], {})


@pytest.mark.data
def test_a_real_dicom_folder_and_its_files_count_once(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "slides" / "dicom_cmu1_small_region_napari"
    files = sorted(path for path in folder.iterdir() if path.suffix == ".dcm" or not path.suffix)
    for given in ([folder, *files], [*files, folder]):
        assert len(gather(given, DEFAULTS).entries) == 1
    # Beside another slide the folder is a folder of slides; the series is still one of them.
    for file in files:
        (tmp_path / file.name).symlink_to(file)
    touch(tmp_path / "a.svs")
    assert len(gather([tmp_path], DEFAULTS).entries) == 2


def test_a_folder_of_which_nothing_can_be_taken_says_what_is_there(tmp_path: Path) -> None:
    touch(tmp_path / "a.vsi")
    with pytest.raises(SettingsError, match=r"without slides that can be taken: .*a\.vsi: Olympus"):
        gather([tmp_path], DEFAULTS)


@pytest.mark.parametrize("name", ["n" * 251, "ä" * 125, "乳腺" * 41, "Pr\udce4" * 60])
def test_the_longest_names_fit_and_stay_different(name: str, tmp_path: Path) -> None:
    longest = longest_stem(tmp_path)
    names = {output_stem(Path(f"{name[:-1]}{last}.svs"), longest) for last in "ab"}
    assert len(names) == 2
    for each in names:
        assert len(os.fsencode(each)) <= longest
        assert each.endswith("_ihc")
        assert unusable(each, longest) == ""
        touch(tmp_path / f".{each}.ome.tiff.{'0' * 32}.part")  # the longest name around an output
    assert output_stem(Path("n" * 200 + ".svs"), longest) == "n" * 200 + "_ihc"


def test_names_say_what_is_a_slide() -> None:
    assert all(could_be_slide(f"a{suffix}") and not why_not_taken(f"a{suffix}") for suffix in SUFFIXES)
    assert LeftOut("a", "b") < LeftOut("b", "a")


def test_the_preview_and_the_exit_code_say_that_something_was_left_out(
    small_slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    touch(folder / "a.vsi")
    (folder / "b.tiff").symlink_to(small_slide)
    command = ["batch", str(folder), "-o", str(tmp_path / "out"), "--generator", "identity"]
    assert _run([*command, "--dry-run"]) == 11
    said = capsys.readouterr().out
    assert f"left out: {folder}/a.vsi: Olympus VSI is not read" in said
    assert "1 slides, 1 left out" in said
    assert _run([*command, "--dry-run", "--exclude", "*.vsi"]) == 0
    touch(folder / "c.csv", b"slide\nmissing.svs\n")
    assert _run([*command, "--dry-run", "--csv", str(folder / "c.csv")]) == 1
