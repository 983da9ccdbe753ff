"""A batch among strange names, planted links and slides that raise anything: each costs only itself."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from tests.test_batch import DEFAULTS, JPEG_70, Listener, fake, slides, touch, work
from wsi_ihc.batch import BatchOptions, Entry, LeftOut, Limits, Records, SlideRecord, gather, run_batch
from wsi_ihc.batch import ledger as ledger_module
from wsi_ihc.batch.claims import Claims
from wsi_ihc.batch.limits import Vigil, default_memory, memory_of
from wsi_ihc.batch.preflight import check_folder
from wsi_ihc.batch.sharing import Places
from wsi_ihc.batch.summary import write_summary
from wsi_ihc.cli import _run
from wsi_ihc.cli.batch_display import batch_display
from wsi_ihc.errors import GeneratorError, StorageError
from wsi_ihc.machine.text import printable

STRANGE = (
    "Pr\udce4parat.svs",
    "a\nwsi-ihc: done\x1b[2J.svs",
    "tab\t=1+1.svs",
    "=HYPERLINK(1).svs",
    "back\\slash.svs",
    "\u202egnp.svs",
    "<b>&amp;'\".svs",
    "100% #3?;.svs",
    "-o.svs",
    "x" * 251 + ".svs",
    "ä" * 125 + ".svs",
    "乳腺.svs",
    " .svs",
)


def test_any_name_that_a_disk_can_hold_is_converted(tmp_path: Path) -> None:
    for name in STRANGE:
        touch(tmp_path / "in" / name, b"good")
    out = tmp_path / "out"
    cohort = gather([tmp_path / "in"], DEFAULTS, folder=out)
    assert len(cohort.entries) == len(STRANGE)
    results = work(cohort.entries, out)
    assert {record.state for record in results.values()} == {"done"}
    # What is meant to be shared is text, on one line each, without the folders of this disk.
    with (out / "summary.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(STRANGE)
    assert all(
        printable(cell) == cell and not cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values()
    )
    slides_told = {slide["slide"] for slide in json.loads((out / "summary.json").read_text())["slides"]}
    assert slides_told == {printable(name) for name in STRANGE}
    for name in ("summary.csv", "summary.json", "index.html"):
        text = (out / name).read_text()
        assert str(tmp_path) not in text
        assert all(printable(line) == line for line in text.split("\n"))
    # The same command finds everything done.
    again = Listener()
    assert {record.attempts for record in work(cohort.entries, out, listener=again).values()} == {1}
    assert again.heard == []


@pytest.mark.parametrize("step", ["make_recipe", "decide", "keep_thumbnail", "source_bytes", "start"])
@pytest.mark.parametrize("error", [ValueError("bad\nvalue"), OSError(36, "File name too long"), RecursionError("deep")])
def test_whatever_is_raised_for_one_slide_is_its_failure_in_one_line(
    step: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = slides(tmp_path / "in", a="good", b="good", c="good")

    def fails_for_b(function: Callable[..., object]) -> Callable[..., object]:
        def failing(*arguments: object, **options: object) -> object:
            if any("b.svs" in str(each) or "b_ihc" in str(each) for each in arguments):
                raise error
            return function(*arguments, **options)

        return failing

    where = {
        "source_bytes": "wsi_ihc.batch.transitions.source_bytes",
        "start": "wsi_ihc.batch.children.subprocess.Popen",
    }.get(step, f"wsi_ihc.batch.run.{step}")
    holder, _, name = where.rpartition(".")
    target = sys.modules.get(holder) or subprocess
    monkeypatch.setattr(where, fails_for_b(getattr(target, name)))
    results = work(entries, tmp_path / "out")
    assert (results["a_ihc"].state, results["c_ihc"].state) == ("done", "done")
    assert results["b_ihc"].state == "failed"
    assert "\n" not in results["b_ihc"].reason
    assert not list(Records(tmp_path / "out").folder.glob("*.lock"))


def test_a_generator_that_only_one_slide_asks_for_costs_only_that_slide(tmp_path: Path) -> None:
    entries = slides(tmp_path / "in", a="good", c="good")
    other = DEFAULTS.model_copy(update={"generator": DEFAULTS.generator.model_copy(update={"name": "gone"})})
    entries += slides(tmp_path / "in", other, b="good")

    def fingerprint(name: str) -> str:
        if name == "gone":
            raise GeneratorError("generator gone: not installed")
        return name

    check_folder(tmp_path / "out")
    results = run_batch(entries, tmp_path / "out", BatchOptions(), Listener(), command=fake, fingerprint=fingerprint)
    assert [results[name].state for name in ("a_ihc", "b_ihc", "c_ihc")] == ["done", "failed", "done"]
    assert results["b_ihc"].reason == "generator gone: not installed"
    with pytest.raises(GeneratorError):
        run_batch(entries[-1:], tmp_path / "out", BatchOptions(), Listener(), command=fake, fingerprint=fingerprint)


def test_planted_links_and_pipes_are_not_followed(tmp_path: Path) -> None:
    entries, out = slides(tmp_path / "in", a="good", b="good", c="good", d="good"), tmp_path / "out"
    folder = Records(out).folder
    folder.mkdir(parents=True)
    victims = [touch(tmp_path / f"victim{number}", b"precious") for number in range(6)]
    (folder / "a_ihc.log").symlink_to(victims[0])
    os.mkfifo(folder / "b_ihc.log")
    (folder / "b_ihc.jpg").symlink_to(victims[1])
    os.link(victims[2], folder / "c_ihc.log")
    (folder / "a_ihc.json").symlink_to(victims[3])
    os.mkfifo(folder / "c_ihc.json")
    (folder / ".claims").symlink_to(victims[4])
    for name in ("summary.csv", "summary.json", "index.html"):
        (out / name).symlink_to(victims[5])
    (folder / "d_ihc.json").mkdir()
    results = work(entries, out)
    assert [results[entry.name].state for entry in entries] == ["done", "done", "done", "failed"]
    assert {victim.read_bytes() for victim in victims} == {b"precious"}
    assert not any(path.is_symlink() for path in (*out.iterdir(), *folder.iterdir()))


def test_a_claim_that_is_a_link_or_a_pipe_is_not_followed(tmp_path: Path) -> None:
    victim = touch(tmp_path / "victim", b"precious")
    (tmp_path / "a.lock").symlink_to(victim)
    os.mkfifo(tmp_path / "b.lock")
    now = 0.0
    claims = Claims(tmp_path, clock=lambda: now)
    assert claims.take("a")
    assert claims.take("b")
    now += 301
    assert claims.take("a") is None
    assert claims.take("b") is None
    assert claims.beat() == []
    claims.release_all()
    assert victim.read_bytes() == b"precious"


def test_a_folder_of_records_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".wsi-ihc").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="a link"):
        check_folder(tmp_path / "out")


def test_without_file_locks_claims_still_exclude_each_other_and_the_user_is_informed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*arguments: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    (tmp_path / "claims").mkdir()
    first, second = Claims(tmp_path / "claims"), Claims(tmp_path / "claims")
    assert first.take("a") is None
    assert second.take("a")
    listener = Listener()
    results = work(slides(tmp_path / "in", a="good", b="good"), tmp_path / "out", listener=listener)
    assert {record.state for record in results.values()} == {"done"}
    assert len([line for line in listener.heard if "no file locks" in line]) == 1


class TestLimits:
    def test_a_slide_without_progress_is_ended_in_one_line(self, tmp_path: Path) -> None:
        entries = slides(tmp_path / "in", a="hangs", b="good")
        results = work(entries, tmp_path / "out", BatchOptions(limits=Limits(stall_s=1)))
        assert results["a_ihc"].reason.startswith("no progress for 0.0166667 minutes")
        assert results["b_ihc"].state == "done"

    @pytest.mark.parametrize("what", ["log", "output.ome.tiff.part", ".output.ome.tiff.7.part", "store"])
    def test_what_progress_is(self, what: str, tmp_path: Path) -> None:
        now = 0.0
        log, output = tmp_path / "log", tmp_path / "output.ome.tiff"
        blocks = tmp_path / "output.ome.tiff.blocks.zarr" / "blocks"
        blocks.mkdir(parents=True)
        vigil = Vigil(os.getpid(), log, output, Limits(stall_s=100), clock=lambda: now)
        for step in range(5):
            now += 90
            (blocks / f"{step}" if what == "store" else tmp_path / what).write_text("x" * (step + 1))
            assert vigil.over_time() == ""
        now += 90
        touch(tmp_path / "another.ome.tiff")
        assert vigil.over_time() == ""
        now += 20
        assert "no progress" in vigil.over_time()

    def test_no_limit_is_no_limit(self, tmp_path: Path) -> None:
        now = 0.0
        vigil = Vigil(os.getpid(), tmp_path, tmp_path, Limits(None, None, None), clock=lambda: now)
        now += 1e9
        assert (vigil.over_time(), vigil.over_memory()) == ("", "")

    def test_memory_counts_what_a_process_and_its_children_hold(self, tmp_path: Path) -> None:
        code = "import subprocess, sys; held = bytearray(60_000_000); print(flush=True); input()"
        outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
        with subprocess.Popen([sys.executable, "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout
            process.stdout.readline()
            assert 60e6 < memory_of(process.pid) < 150e6
            vigil = Vigil(process.pid, tmp_path, tmp_path, Limits(memory_bytes=50_000_000))
            assert "more than the 0.1 GB that one slide may have" in vigil.over_memory()
            process.communicate(b"\n")
        assert memory_of(process.pid) == 0
        assert 0 < default_memory(2) <= default_memory(1) // 2 + 1

    def test_a_slide_that_takes_too_much_is_ended_in_one_line(self, tmp_path: Path) -> None:
        entries = slides(tmp_path / "in", a="hangs", b="good")
        results = work(entries, tmp_path / "out", BatchOptions(limits=Limits(memory_bytes=1000)))
        assert "GB of memory" in results["a_ihc"].reason
        assert not results["a_ihc"].retry


class TestLeftOut:
    def test_it_is_in_every_summary_until_it_is_taken(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out, entries = tmp_path / "out", slides(tmp_path / "in", a="good")
        check_folder(out)
        records = Records(out)
        left_out = [LeftOut(str(tmp_path / "in" / "sub"), "a folder that was not searched; --recursive searches it")]
        left_out += [LeftOut(str(tmp_path / "in" / "x\x1b.vsi"), "not read")]
        records.write_left_out(["in"], left_out)
        work(entries, out)
        assert [each["name"] for each in json.loads((out / "summary.json").read_text())["left_out"]] == [
            "sub", r"x\x1b.vsi",
        ]  # fmt: skip
        with (out / "summary.csv").open() as stream:
            rows = [(row["slide"], row["state"]) for row in csv.DictReader(stream)]
        assert rows == [("a.svs", "done"), ("sub", "left out"), (r"x\x1b.vsi", "left out")]
        assert r"x\x1b.vsi" in (out / "index.html").read_text()
        assert _run(["status", str(out)]) == 0
        said = capsys.readouterr().out
        assert r"x\x1b.vsi: not read" in said
        assert "2 left out" in said
        # Another command takes the folder; the first one finds nothing to leave out any more.
        work(slides(tmp_path / "in" / "sub", b="good"), out)
        assert [Path(each.name).name for each in records.left_out()] == ["x\x1b.vsi"]
        records.write_left_out(["in"], [])
        write_summary(records)
        assert records.left_out() == ()


class TestPlaces:
    def records(self, *slides: str) -> dict[str, SlideRecord]:
        return {slide: SlideRecord(slide=slide, output="o") for slide in slides}

    def test_paths_are_relative_to_the_folder_of_all_slides(self) -> None:
        places = Places.of(self.records("/scans/a/1.svs", "/scans/b/2.svs"), Path("/results/out"))
        assert places.slide("/scans/a/1.svs") == "a/1.svs"
        assert places.text("/results/out/x.ome.tiff exists, /scans/b/2.svs") == "x.ome.tiff exists, b/2.svs"

    def test_slides_of_two_disks_keep_their_last_folder(self) -> None:
        places = Places.of(self.records("/one/deep/a/1.svs", "/two/b/2.svs"), Path("/out"))
        assert places.slide("/one/deep/a/1.svs") == "a/1.svs"


def test_settings_that_differ_are_told(tmp_path: Path) -> None:
    work(slides(tmp_path / "in", JPEG_70, a="good"), tmp_path / "out")
    [slide] = json.loads((tmp_path / "out" / "summary.json").read_text())["slides"]
    assert slide["settings"] == "output.quality=70"


def test_the_page_is_rewritten_while_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "_SOON_S", 0.0)
    monkeypatch.setattr(ledger_module, "_REST", 0)
    seen: list[int] = []

    class Looking(Listener):
        def started(self, entry: Entry, why: str) -> None:
            page = tmp_path / "out" / "summary.json"
            time.sleep(0.01)
            seen.append(json.loads(page.read_text())["done"] if page.exists() else -1)

    work(slides(tmp_path / "in", a="slow", b="slow", c="slow"), tmp_path / "out", listener=Looking())
    assert seen[-1] >= 1


class TestWarnings:
    """A slide that is done with a warning says so everywhere."""

    @pytest.fixture
    def out(self, tmp_path: Path) -> Path:
        out = tmp_path / "out"
        entries = slides(tmp_path / "in", a="good", b="good")
        work(entries, out)
        sidecar = out / "a_ihc.json"
        told = json.loads(sidecar.read_text())
        notices = [
            {"code": "stain", "text": "looks like <IHC>\x1b[2J", "level": "warning"},
            {"code": "reader", "text": "read by another reader", "level": "note"},
        ]
        made = {"generator": "recolour", "mpp": 0.5, "tissue_fraction": 0.25}
        sidecar.write_text(json.dumps(told | {"run": told["run"] | {"notices": notices}, "provenance": made}))
        work(entries, out)  # done already; the record learns what it did not know
        return out

    def test_in_every_summary(self, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
        slide = json.loads((out / "summary.json").read_text())["slides"][0]
        assert slide["warnings"] == [r"looks like <IHC>\x1b[2J"]
        assert (slide["generator"], slide["mpp"], slide["tissue"]) == ("recolour", 0.5, 0.25)
        with (out / "summary.csv").open() as stream:
            assert next(csv.DictReader(stream))["warnings"] == r"looks like <IHC>\x1b[2J"
        page = (out / "index.html").read_text()
        assert r"looks like &lt;IHC&gt;\x1b[2J" in page
        assert "1 warning<" in page
        assert _run(["status", str(out)]) == 0
        said = capsys.readouterr().out
        assert "done, 1 warning" in said
        assert r"looks like <IHC>\x1b[2J" in said
        assert _run(["status", str(out), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["slides"][0]["warnings"]


def test_eighty_columns_hold_bar_step_pace_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    screen = io.StringIO()
    console = Console(file=screen, width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr("wsi_ihc.cli.batch_display.Console", lambda stderr: console)
    entry = Entry(Path("TCGA-A1-A0SB-01Z-00-DX1.B34C267B-CAAA-4AB6-AD5C-276C26F997A1.svs"), "a", DEFAULTS)
    with batch_display(quiet=False) as display:
        display.begin(2000)
        display.started(entry, "")
        display.said(entry, "1034/2210 blocks, 12.34 Mpx/s, 1 h 07 min left")
        display._progress.refresh()  # type: ignore[attr-defined]
        shown = screen.getvalue()
    line = [line for line in shown.splitlines() if "TCGA" in line][-1]
    assert len(line.rstrip()) <= 80
    assert "━" in line
    for part in ("1034/2210", "12.34 Mpx/s", "1 h 07 min left"):
        assert part in line
