"""The command line as its user meets it."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from rich.console import Console

from wsi_ihc.cli import COMMANDS, _run, cli
from wsi_ihc.cli.doctor import Finding, _engine, examine_all
from wsi_ihc.cli.progress import _Pace
from wsi_ihc.cli.training_display import _COLUMNS, _Bar
from wsi_ihc.errors import GeneratorError, WsiIhcError


def _tree(error: type[WsiIhcError]) -> list[type[WsiIhcError]]:
    return [error, *(leaf for child in error.__subclasses__() for leaf in _tree(child))]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run([name, "--help"]) == 0
    assert "Usage" in capsys.readouterr().out


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    _run(["--help"])
    said = capsys.readouterr().out
    assert all(name in said for name in COMMANDS)
    assert cli.name


def test_exit_codes_are_those_of_the_documentation() -> None:
    codes = {error.__name__: error.exit_code for error in _tree(WsiIhcError)}
    assert codes["SettingsError"] == 2
    assert codes["UnreadableSlideError"] == codes["ResolutionError"] == 3
    assert set(codes.values()) == set(range(1, 11))


def test_convert_verify_and_info(small_slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out.ome.tiff"
    assert _run(["convert", str(small_slide), "-o", str(output), "--generator", "recolour"]) == 0
    assert "out.ome.tiff" in capsys.readouterr().out
    assert _run(["verify", str(output)]) == 0
    assert _run(["info", str(output), "--json"]) == 0
    capsys.readouterr()
    with output.open("r+b") as file:
        file.truncate(output.stat().st_size // 2)
    assert _run(["verify", str(output)]) == 6


def test_the_dry_run_tells_tissue_blocks_memory_size_and_time(
    small_slide: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(["convert", str(small_slide), "--dry-run", "--generator", "identity", "-q"]) == 0
    said = capsys.readouterr().out
    for word in ("tissue", "blocks", "memory", "MB", "time"):
        assert word in said


def test_an_edited_mask_goes_back_in(small_slide: Path, tmp_path: Path) -> None:
    """What ``tissue`` writes, ``convert --tissue`` reads: here the left half of the plane only."""
    mask = tmp_path / "mask.geojson"
    assert _run(["tissue", str(small_slide), "-o", str(mask)]) == 0
    feature = json.loads(mask.read_text())["features"][0]
    feature["geometry"] = {"type": "Polygon", "coordinates": [[[0, 0], [600, 0], [600, 1300], [0, 1300], [0, 0]]]}
    mask.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    output = tmp_path / "out.ome.tiff"
    options = ["--tissue", str(mask), "--generator", "identity", "--compression", "deflate", "--quiet"]
    assert _run(["convert", str(small_slide), "-o", str(output), *options]) == 0
    pixels = tifffile.imread(output)
    assert (pixels[:, 700:] == 255).all()
    assert (pixels[600:700, 200:500] < 250).any()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["convert", "none.svs", "-o", "out.ome.tiff"], 3, "none.svs"),
        (["convert", "{slide}", "-o", "out.ome.tiff", "--generator", "nonsense"], 4, "nonsense"),
        (["convert", "{slide}", "-o", "out.ome.tiff", "--set", "tiling.core=3"], 2, "tiling.core"),
        (["convert", "{slide}", "-o", "out.ome.tiff", "--device", "cuda:7"], 7, "cuda"),
        (["convert", "{slide}", "-o", "out.jpg"], 2, ".ome.tiff"),
        (["convert", "{slide}", "-o", "out.ome.tiff", "--tissue", "none.geojson"], 2, "none.geojson"),
        (["convert", "{slide}", "-o", "out.ome.tiff", "--generator", "identity", "--mpp", "1000"], 2, "mpp"),
        (["convert", "{slide}", "-o", "out.ome.tiff", "--batch-size", "none"], 2, "batch_size"),
        (["convert", "{slide}", "-o", "out.ome.tiff", "--set", "compute.scheduler=tcp://127.0.0.1:1"], 10, "scheduler"),
        (["verify", "none.ome.tiff"], 6, "none.ome.tiff"),
        (["weights", "show", "nonsense"], 4, "nonsense"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(
    arguments: list[str],
    code: int,
    words: str,
    small_slide: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run([argument.format(slide=small_slide) for argument in arguments]) == code
    captured = capsys.readouterr()
    said = captured.err + captured.out
    assert words in captured.err.splitlines()[-1]
    assert "Traceback" not in said
    assert not list(tmp_path.glob("*.tiff"))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["convert", "none.svs", "-o", "new/deep/out.ome.tiff"], 3, "check the path"),
        (["convert", "{blank}", "-o", "new/out.ome.tiff", "--mpp", "0.5"], 3, "no tissue found"),
        (["convert", "{slide}", "-o", "out.ome.tiff", "--quality", "abc"], 2, "see wsi-ihc convert --help"),
        (["convert", "{slide}", "-o", ".", "--quality", "80"], 2, "is a directory"),
        (["info", "{slide}", "--at", "0"], 2, "resolution.mpp"),
        (["info", "{slide}", "--at", "nan"], 2, "resolution.mpp"),
        (["info", "{folder}"], 3, "no DICOM file"),
        (["info", "{blank}", "--reader", "openslide"], 3, "--reader auto"),
        (["info", "{blank}", "--reader", "tiffslide"], 3, "no TIFF"),
        (["tissue", "{slide}"], 2, "Missing option '-o'"),
        (["tissue", "{blank}", "-o", "new/mask.geojson", "--mpp", "2"], 3, "no tissue found"),
        (["verify", "{folder}"], 6, "a folder"),
        (["verify", "{blank}"], 6, "no TIFF"),
        (["convert", "s3://bucket/x.svs", "-o", "new.ome.tiff"], 2, "s3://bucket/x.svs: an address"),
        (["batch", "https://host/x.svs", "-o", "new"], 2, "https://host/x.svs: an address"),
        (["weights", "import", "none.pth"], 2, "--mpp, --stain"),
        (["doctor", "--jsn"], 2, "--json"),
    ],
)
def test_a_mistake_ends_in_one_line_and_leaves_nothing_behind(
    arguments: list[str],
    code: int,
    words: str,
    small_slide: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    inputs = tmp_path_factory.mktemp("inputs")
    blank = inputs / "blank.png"
    cv2.imwrite(str(blank), np.full((300, 300, 3), 243, np.uint8))
    (inputs / "folder").mkdir()
    names = {"slide": small_slide, "blank": blank, "folder": inputs / "folder"}
    assert _run([argument.format(**names) for argument in arguments]) == code
    said = capsys.readouterr().err.splitlines()
    assert words in said[-1]
    assert said[-1].startswith("wsi-ihc: ")
    assert not [line for line in said if "Usage" in line or "Traceback" in line]
    assert not list(tmp_path.iterdir())


def test_a_trouble_of_the_machine_is_no_internal_error(
    small_slide: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def locked(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", locked)
    assert _run(["info", str(small_slide)]) == 3
    assert capsys.readouterr().err == f"wsi-ihc: {small_slide}: cannot be read (Permission denied); check the path\n"
    assert _run(["convert", str(small_slide), "-o", "out.ome.tiff", "--generator", "identity"]) == 5
    assert (
        capsys.readouterr().err
        == "wsi-ihc: out.ome.tiff: Permission denied; check the path, the permissions and the disk\n"
    )


def _healthy() -> Finding:
    return True, "fine"


def _crashes() -> Finding:
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError


def _fails() -> Finding:
    raise ValueError("no codec")


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_doctor_reports_a_crash_and_goes_on() -> None:
    findings = dict(examine_all({"a": _healthy, "engine": _crashes, "b": _fails, "c": _crashes, "d": _healthy}))
    assert list(findings) == ["a", "engine", "b", "c", "d"]
    assert [ok for ok, _ in findings.values()] == [True, False, False, False, True]
    assert findings["engine"][1].startswith("crashed (SIGSEGV): convert with --backend torch")
    assert findings["b"][1] == "ValueError: no codec"
    assert "another version" in findings["c"][1]


@pytest.mark.usefixtures("every_processor")
def test_doctor_tries_the_engine_that_auto_takes() -> None:
    ok, seen = _engine()
    assert ok
    assert re.fullmatch(r"(torch|openvino) in (float32|bfloat16|float16) on the (cpu|cuda), tried", seen)


def test_verify_shows_figures(small_slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out.ome.tiff"
    assert _run(["convert", str(small_slide), "-o", str(output), "--generator", "identity", "-q"]) == 0
    assert _run(["verify", str(output)]) == 0
    said = capsys.readouterr().out
    assert "sound, 1700 x 1300 px" in said
    assert re.search(r"levels +3, down to 425 x 325 px", said)
    assert re.search(r"tiles +\d+ of 512 px, jpeg", said)
    assert re.search(r"pixel size +0.5 um/px", said)
    assert _run(["verify", "--json", str(output)]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["figures"]["pixel size"] == "0.5 um/px"


def test_tissue_as_json(small_slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["tissue", str(small_slide), "-o", str(tmp_path / "mask.png"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert 0.1 < facts["tissue_fraction"] < 1
    assert facts["tissue_mm2"] == pytest.approx(facts["tissue_fraction"] * facts["width_mm"] * facts["height_mm"])


def test_only_the_users_own_generators_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WSI_IHC_HOME", str(tmp_path))
    mine = tmp_path / "bundles" / "mine.safetensors"
    mine.parent.mkdir()
    mine.write_bytes(b"")
    for name, words in (("recolour", "came with"), ("her2-demo", "came with"), ("other", "you installed: mine")):
        assert _run(["weights", "remove", name, "--yes"]) == GeneratorError.exit_code
        assert words in capsys.readouterr().err
    assert _run(["weights", "remove", "../bundles/mine", "--yes"]) == GeneratorError.exit_code
    assert mine.exists()
    assert _run(["weights", "remove", "mine", "--yes"]) == 0
    assert not mine.exists()


def test_pace_leaves_out_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step also waits for the generator to start."""
    clock = iter((100.0, 101.0, 102.0))
    monkeypatch.setattr("wsi_ihc.cli.progress.time.monotonic", lambda: next(clock))
    pace = _Pace()
    assert [pace.advance(4), pace.advance(4), pace.advance(4)] == [0, 4, 4]


def test_a_training_fits_a_terminal_of_80_columns() -> None:
    console = Console(width=80, force_terminal=True, color_system=None, file=io.StringIO(), record=True)
    bar = _Bar(*_COLUMNS, console=console)
    bar.add_task("training", total=65000, completed=13000, pace="12.43 steps/s", losses="loss " * 30)
    console.print(bar.get_renderable())
    lines = console.export_text().splitlines()
    assert "13000/65000 12.43 steps/s 0:00:00 gone, -:--:-- left" in lines[0]
    assert lines[1].startswith("loss loss")
    assert max(map(len, lines)) <= 80
