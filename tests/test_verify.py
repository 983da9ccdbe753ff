"""verify: a sound output passes; whatever is wrong with a file is told in one line each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import provenance, write_store
from wsi_ihc.cli.verify import verify
from wsi_ihc.conversion.store import StoreLayout, TileStore
from wsi_ihc.errors import OutputError
from wsi_ihc.output.ometiff import VerificationReport, sidecar_path, verify_ome_tiff, write_sidecar
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.pyramid.layers import STAINED, Layer

PROVENANCE = provenance(Size(1500, 1100))


@pytest.fixture(scope="module", params=["jpeg", "deflate"])
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return an_output(folder, request.param)


@pytest.fixture(scope="module")
def sound_jpeg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return an_output(tmp_path_factory.mktemp("jpeg"), "jpeg")


def an_output(folder: Path, compression: str) -> Path:
    y, x = np.mgrid[:1500, :1100].astype(np.float32)
    plane = np.stack([150 + 80 * np.sin(x / 97), 120 + 80 * np.cos(y / 83), 90 + y / 20], axis=-1).astype(np.uint8)
    layout = StoreLayout(Size(1500, 1100), 512, (Layer(STAINED, compression),))  # type: ignore[arg-type]
    store = TileStore.create(folder / "store", layout, {})
    for row, column in np.ndindex(layout.grid):
        if row < 2:
            store.put(row, column, {STAINED: plane[row * 512 : (row + 1) * 512, column * 512 : (column + 1) * 512]})
    return write_store(store, folder / "output.ome.tiff", PROVENANCE.model_copy(update={"compression": compression}))


def damaged(source: Path, folder: Path, data: bytes) -> VerificationReport:
    path = folder / source.name
    path.write_bytes(data)
    return verify_ome_tiff(path, with_sidecar=False)


def replaced(source: Path, folder: Path, old: bytes, new: bytes) -> VerificationReport:
    """Of the file with ``old`` changed into ``new``, padded so that nothing moves."""
    data = source.read_bytes()
    assert old in data
    assert len(new) <= len(old)
    return damaged(source, folder, data.replace(old, new.ljust(len(old)), 1))


def level_page(path: Path, level: int) -> tifffile.TiffPage:
    with tifffile.TiffFile(path) as tiff:
        first = tiff.pages[0]
        return first if level == 0 else first.pages[level - 1]  # type: ignore[union-attr,return-value,index]


@pytest.mark.parametrize("quick", [False, True])
def test_a_sound_output_passes(sound: Path, quick: bool) -> None:
    report = verify_ome_tiff(sound, quick=quick)
    assert report.problems == ()
    assert report.ok
    assert [check.name for check in report.checks] == [
        "opens",
        "levels in the main chain",
        "levels",
        "tiles",
        "pixels",
        "OME-XML",
        "pixel size",
        "magnification",
        "provenance",
        "research use only",
    ]


def test_an_output_of_one_tile_passes(tmp_path: Path) -> None:
    store = TileStore.create(tmp_path / "store", StoreLayout(Size(30, 20), 512), {})
    store.put(0, 0, {STAINED: np.full((512, 512, 3), 99, np.uint8)})
    for quick in (True, False):
        assert verify_ome_tiff(write_store(store, tmp_path / "a.ome.tiff", PROVENANCE), quick=quick).problems == ()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (b'PhysicalSizeX="0.5"', b'PhysicalSizeX="0"', "pixel size: PhysicalSizeX 0.0 µm"),
        (b'PhysicalSizeX="0.5"', b'PhysicalSizeX="0.9"', "pixel size: pixels are not square"),
        (b'PhysicalSizeX="0.5"', b"", "pixel size: PhysicalSizeX nan"),
        (b'SizeX="1100"', b'SizeX="1000"', "pixel size: the XML says 1000x1500"),
        (b'PlaneCount="1"', b"", "pixel size: TiffData must name IFD 0"),
        (
            b'<Objective ID="Objective:0" NominalMagnification="20" />',
            b"",
            "magnification: 1 instruments and 0 objectives",
        ),
        (b"software; not for", b"software; and for", "research use only: the description"),
        (b"wsi-ihc.org/provenance", b"foreign.org/provenance", "provenance: absent"),
        (b'K="generator"', b'K="genera"', "provenance: incomplete; generator"),
        (b'Type="uint8"', b'Type="rgb24"', "OME-XML: not valid against the OME schema"),
        (b"<Pixels", b"<Pixel", "OME-XML: no XML (mismatched tag"),
        (b"utf-8", b"utf-9", "OME-XML: no XML (unknown encoding: utf-9)"),
        (b"II+\0\x08", b"II+\0\x07", "opens: "),
    ],
)
def test_metadata_that_is_wrong_is_named(
    sound_jpeg: Path, tmp_path: Path, old: bytes, new: bytes, problem: str
) -> None:
    problems = replaced(sound_jpeg, tmp_path, old, new).problems
    assert any(line.startswith(problem) for line in problems), problems


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_tile_without_bytes_is_named(sound_jpeg: Path, tmp_path: Path, level: int) -> None:
    path = Path(shutil.copy(sound_jpeg, tmp_path))
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        first = tiff.pages[0]
        page = first if level == 0 else first.pages[level - 1]  # type: ignore[union-attr,index]
        page.tags["TileByteCounts"].overwrite([0, *page.databytecounts[1:]])
    problems = verify_ome_tiff(path).problems
    assert any(line.startswith(f"tiles: level {level}, tile 0, 0: absent") for line in problems), problems


def test_a_black_tile_is_named(tmp_path: Path) -> None:
    store = TileStore.create(tmp_path / "store", StoreLayout(Size(600, 600), 512), {})
    store.put(0, 0, {STAINED: np.zeros((512, 512, 3), np.uint8)})
    report = verify_ome_tiff(write_store(store, tmp_path / "a.ome.tiff", PROVENANCE))
    assert report.problems == ("pixels: level 0, tile 0, 0: all black",)


def test_a_level_that_shows_another_picture_is_named(sound_jpeg: Path, tmp_path: Path) -> None:
    page = level_page(sound_jpeg, 1)
    data = bytearray(sound_jpeg.read_bytes())
    (first, second), (count, room) = page.dataoffsets[:2], page.databytecounts[:2]
    other = data[second : second + room][:-2]
    assert room < count
    data[first : first + count] = other.ljust(count - 2, b"\0") + b"\xff\xd9"
    problems = damaged(sound_jpeg, tmp_path, bytes(data)).problems
    assert any("level 1, tile 0, 0: differs from the level below it" in line for line in problems), problems


def test_a_file_cut_short_is_named(sound: Path, tmp_path: Path) -> None:
    data = sound.read_bytes()
    for share in (0.0, 0.001, 0.3, 0.7, 0.99, 0.9999):
        report = damaged(sound, tmp_path, data[: int(share * len(data))])
        assert not report.ok
        assert not any("\n" in line for line in report.problems)


@given(st.integers(0, 10**9), st.integers(0, 7))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_never_ends_in_a_traceback(sound: Path, tmp_path: Path, position: int, bit: int) -> None:
    data = bytearray(sound.read_bytes())
    position %= len(data)
    data[position] ^= 1 << bit
    assert not any("\n" in line for line in damaged(sound, tmp_path, bytes(data)).problems)


def test_a_flipped_bit_in_a_lossless_tile_is_always_found(tmp_path: Path) -> None:
    path = an_output(tmp_path, "deflate")
    page = level_page(path, 0)
    for position in range(page.dataoffsets[0], page.dataoffsets[0] + page.databytecounts[0], 5003):
        data = bytearray(path.read_bytes())
        data[position] ^= 4
        assert not damaged(path, tmp_path / "store", bytes(data)).ok


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"\xff\xd8\xff\xe0"])
def test_what_is_no_tiff_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.ome.tiff"
    path.write_bytes(content)
    assert [check.name for check in verify_ome_tiff(path).checks] == ["opens"]
    assert not verify_ome_tiff(path).ok


def test_a_foreign_pyramid_is_told_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "foreign.ome.tif"
    plane = np.full((600, 600, 3), 200, np.uint8)
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as tiff:
        tiff.write(plane, tile=(256, 256), photometric="rgb", subifds=1, metadata={"axes": "YXS"})
        tiff.write(plane[::2, ::2], tile=(256, 256), photometric="rgb", subfiletype=1)
    wrong = {check.name for check in verify_ome_tiff(path).checks if not check.ok}
    assert wrong == {"levels in the main chain", "pixel size", "magnification", "provenance", "research use only"}


# The sidecar


@pytest.fixture
def with_sidecar(sound_jpeg: Path, tmp_path: Path) -> Path:
    path = Path(shutil.copy(sound_jpeg, tmp_path))
    write_sidecar(path, PROVENANCE, {"seconds": 1})
    return path


def test_a_sidecar_that_agrees_passes(with_sidecar: Path) -> None:
    report = verify_ome_tiff(with_sidecar)
    assert report.ok
    assert report.checks[-1].name == "sidecar"


def test_a_sidecar_that_tells_another_story_is_named(with_sidecar: Path) -> None:
    sidecar = sidecar_path(with_sidecar)
    content = json.loads(sidecar.read_text())
    content["provenance"]["generator"] = "another"
    sidecar.write_text(json.dumps(content))
    assert verify_ome_tiff(with_sidecar).problems == (
        "sidecar: output.json says generator = another, the image identity",
    )


def test_a_byte_changed_later_is_found_by_the_sidecar(with_sidecar: Path) -> None:
    data = with_sidecar.read_bytes()
    with_sidecar.write_bytes(data.replace(b'Name="Virtual', b'Name="Genuine', 1))
    assert "the image was changed after it was written" in verify_ome_tiff(with_sidecar).problems[0]
    assert verify_ome_tiff(with_sidecar, quick=True).ok


@pytest.mark.parametrize("content", [b"", b"[]", b'{"provenance": {}}', b"\xff"])
def test_a_damaged_sidecar_is_a_problem_of_one_line(with_sidecar: Path, content: bytes) -> None:
    sidecar_path(with_sidecar).write_bytes(content)
    (problem,) = verify_ome_tiff(with_sidecar).problems
    assert problem.startswith("sidecar: ")
    assert "\n" not in problem


# The command


def test_the_command_names_every_check(sound_jpeg: Path) -> None:
    result = CliRunner().invoke(verify, [str(sound_jpeg)], catch_exceptions=False)
    assert result.exit_code == 0
    assert ": sound, 1100 x 1500 px" in result.output
    assert "ok  pixels" in result.output


def test_the_command_fails_for_the_one_that_is_wrong(sound_jpeg: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.ome.tiff"
    bad.write_bytes(sound_jpeg.read_bytes()[:-500])
    result = CliRunner().invoke(verify, ["--quick", str(sound_jpeg), str(bad), str(tmp_path / "none.tiff")])
    assert isinstance(result.exception, OutputError)
    assert str(result.exception).startswith(f"{bad}: levels in the main chain")
    assert str(result.exception).endswith("(and 1 more)")
    assert "NOT sound" in result.output
    assert "no such file" in result.output


def test_the_command_speaks_json(sound_jpeg: Path) -> None:
    result = CliRunner().invoke(verify, ["--json", str(sound_jpeg)], catch_exceptions=False)
    (report,) = json.loads(result.output)
    assert report["ok"]
    assert report["checks"][0] == {"name": "opens", "problems": [], "ok": True}
