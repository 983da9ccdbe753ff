"""Cohorts: which slides, who works on them, what is done again and what is not, and what a person sees."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import stained_island, write_slide
from wsi_ihc.batch import (
    BatchOptions,
    Entry,
    Limits,
    Records,
    SlideRecord,
    gather,
    read_cohort,
    run_batch,
    shard,
    tally,
)
from wsi_ihc.batch import claims as claims_module
from wsi_ihc.batch.children import convert_command
from wsi_ihc.batch.claims import Claims, birth
from wsi_ihc.batch.cohort import read_table
from wsi_ihc.batch.decisions import decide
from wsi_ihc.batch.prefetch import Cache
from wsi_ihc.batch.preflight import check_folder, check_owners, check_space
from wsi_ihc.batch.recipe import differences, make_recipe
from wsi_ihc.batch.summary import write_summary
from wsi_ihc.cli import _run
from wsi_ihc.cli.batch import _gpus
from wsi_ihc.cli.batch_display import batch_display
from wsi_ihc.config import ConversionSettings, load_settings
from wsi_ihc.errors import ClusterError, SettingsError, StorageError
from wsi_ihc.machine.text import printable
from wsi_ihc.output.names import output_stem

DEFAULTS = ConversionSettings()
JPEG_70 = load_settings(ConversionSettings, None, {"output.quality": 70})

# Stands for ``wsi-ihc convert``: the slide's first word says what becomes of it.
CHILD = """
import hashlib, json, os, signal, sys, time
slide, output = sys.argv[1:3]
what = open(slide).read().split()[0] if os.path.exists(slide) else "missing"
print("opening", flush=True)
if what == "slow":
    time.sleep(0.4)
if what == "crashes":
    os.kill(os.getpid(), signal.SIGSEGV)
if what == "starves":
    os.kill(os.getpid(), signal.SIGKILL)
while what == "hangs" and os.getppid() == int(os.environ["WSI_IHC_SUPERVISED"]):
    time.sleep(0.1)
if what in ("damaged", "missing"):
    sys.exit(print(f"wsi-ihc: {slide}: cannot be read", flush=True) or 3)
if what == "unconnected":
    sys.exit(print("wsi-ihc: the dask scheduler is lost", flush=True) or 10)
if what == "crowded" and not os.path.exists(output + ".room"):
    sys.exit(print("wsi-ihc: the disk is full", flush=True) or 5)
data = " ".join(sys.argv[3:]).encode()
open(output, "wb").write(data)
told = {"file": {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}, "run": {"megapixels": 2.5}}
json.dump(told, open(output.replace(".ome.tiff", ".json"), "w"))
"""


def fake(slide: Path, output: Path, settings: ConversionSettings, overwrite: bool) -> list[str]:
    command = [sys.executable, "-I", "-S", "-c", CHILD, str(slide), str(output)]
    return [*command, f"quality {settings.output.quality}", *(["overwrite"] if overwrite else [])]


class Listener:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def begin(self, total: int) -> None: ...

    def started(self, entry: Entry, why: str) -> None:
        self.heard.append(f"{entry.name} starts: {why}")

    def said(self, entry: Entry, line: str) -> None: ...

    def ended(self, entry: Entry, record: SlideRecord, *, news: bool) -> None: ...

    def note(self, text: str) -> None:
        self.heard.append(text)


def work(
    entries: Sequence[Entry], folder: Path, options: BatchOptions | None = None, listener: Listener | None = None
) -> dict[str, SlideRecord]:
    check_folder(folder)
    options, listener = options or BatchOptions(), listener or Listener()
    return run_batch(entries, folder, options, listener, command=fake, fingerprint=lambda name: f"{name} 1")


def slides(folder: Path, settings: ConversionSettings = DEFAULTS, **contents: str) -> list[Entry]:
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / f"{name}.svs").write_text(content)
    return [Entry(folder / f"{name}.svs", f"{name}_ihc", settings) for name in contents]


def touch(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


class TestCohort:
    def test_a_folder_is_searched_and_a_dicom_folder_is_a_slide(self, tmp_path: Path) -> None:
        names = "b.svs a.ndpi notes.txt .hidden.svs d/1.dcm e/IMG1 deep/c.tiff deep/f/2.dcm case.mrxs"
        for name in [*names.split(), "case/Data0.dat"]:
            touch(tmp_path / name, bytes(128) + b"DICM" if name.startswith("e/") else b"x")

        def found(**options: bool) -> list[str]:
            return [str(entry.slide.relative_to(tmp_path)) for entry in gather([tmp_path], DEFAULTS, **options).entries]

        assert found() == ["a.ndpi", "b.svs", "case.mrxs", "d", "e"]
        assert found(recursive=True) == ["a.ndpi", "b.svs", "case.mrxs", "d", "deep/c.tiff", "deep/f", "e"]
        assert gather([tmp_path / "d"], DEFAULTS).entries[0].name == "d_ihc"

    def test_a_folder_without_slides_says_how_to_search_deeper(self, tmp_path: Path) -> None:
        touch(tmp_path / "deep" / "a.svs")
        with pytest.raises(SettingsError, match="--recursive"):
            gather([tmp_path], DEFAULTS)
        with pytest.raises(SettingsError, match="no slides"):
            gather([], DEFAULTS)

    @pytest.mark.parametrize(
        ("slide", "name"), [("case.7.svs", "case.7_ihc"), ("a.ome.tiff", "a_ihc"), ("a.TIF", "a_ihc"), ("a", "a_ihc")]
    )
    def test_names_of_outputs(self, slide: str, name: str) -> None:
        assert output_stem(Path(slide)) == name

    @pytest.mark.parametrize("other", ["x/a.svs", "x/a.tif", "x/A.svs"])
    def test_two_slides_of_one_name_are_refused(self, other: str, tmp_path: Path) -> None:
        paths = [touch(tmp_path / "a.svs"), touch(tmp_path / other)]
        with pytest.raises(SettingsError, match=r"would both become .*--csv"):
            gather(paths, DEFAULTS)
        assert len(gather([paths[0], paths[0]], DEFAULTS).entries) == 1

    @given(names=st.sets(st.text("abc123", min_size=1, max_size=8), max_size=40), count=st.integers(1, 7))
    def test_shards_are_a_partition_that_no_other_slide_changes(self, names: set[str], count: int) -> None:
        entries = [Entry(Path(name), name, DEFAULTS) for name in names]
        parts = [shard(entries, index, count) for index in range(1, count + 1)]
        assert sorted(entry.name for part in parts for entry in part) == sorted(names)
        for index, part in enumerate(parts, start=1):
            assert all(shard([entry], index, count) == [entry] for entry in part)


class TestTable:
    def table(self, folder: Path, text: str) -> Path:
        return touch(folder / "slides.csv", text.encode())

    @pytest.mark.parametrize(
        "text",
        [
            "slide,mpp,generator,output\na.svs,0.25,identity,case 7\nb.svs,,,\n\n",
            "\ufeffSlide;MPP;Generator;Output name\na.svs;0,25;identity;case 7.ome.tiff\nb.svs\n",
        ],
    )
    def test_what_a_row_says_holds_for_its_slide(self, text: str, tmp_path: Path) -> None:
        (first, second), wrong = read_table(self.table(tmp_path, text), JPEG_70)
        assert wrong == []
        assert (first.slide, first.name) == (tmp_path / "a.svs", "case 7")
        assert (first.settings.slide.mpp, first.settings.generator.name) == (0.25, "identity")
        assert first.settings.output.quality == 70
        assert second == Entry(tmp_path / "b.svs", "b_ihc", JPEG_70)

    def test_a_row_adds_to_a_slide_that_was_found(self, tmp_path: Path) -> None:
        touch(tmp_path / "a.svs")
        touch(tmp_path / "b.svs")
        entries = gather([tmp_path], DEFAULTS, table=self.table(tmp_path, "slide,mpp\nb.svs,0.5\nc.svs,1\n")).entries
        assert [(entry.slide.name, entry.settings.slide.mpp) for entry in entries] == [
            ("a.svs", None), ("b.svs", 0.5), ("c.svs", 1.0),
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("slide,colour\na,b\n", "unknown column 'colour'"),
            ("mpp\n1\n", "slide among them"),
            ("", "slide among them"),
            ('slide\nb.svs\n"a.svs\n', "line 3 opens a quotation mark"),
            ("s\0l\0i\0d\0e\0\n\0", "UTF-8"),
        ],
    )
    def test_what_is_no_table_is_refused_in_one_line(self, text: str, words: str, tmp_path: Path) -> None:
        table = touch(tmp_path / "slides.csv", text.encode(errors="surrogateescape"))
        with pytest.raises(SettingsError, match=words) as caught:
            read_table(table, DEFAULTS)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("row", "words"),
        [
            ("a.svs,much", "got 'much'"),
            ("a.svs,1000", "got '1000'"),
            ("a.svs,,,../b", "not the name of a file"),
            ("a.svs,,,.hidden", "not the name of a file"),
            ("a.svs,,,summary", "a file of the batch itself"),
            ("a.svs,,,Index.ome.tiff", "a file of the batch itself"),
            (f"a.svs,,,{'n' * 240}", "longer than"),
            (",1", "names no slide"),
            ("a.svs,0,5,x,y", "5 cells"),
            ("good.svs,1", "more than one row"),
            ("a\0.svs", "no possible name"),
            ("Pr\udce4.svs", r"Pr\\xe4.svs is not UTF-8"),
            ('"a"x.svs', "not a row"),
        ],
    )
    def test_a_wrong_row_is_left_out_in_one_line_and_the_others_count(
        self, row: str, words: str, tmp_path: Path
    ) -> None:
        text = f"slide,mpp,generator,output\ngood.svs,0.5\n{row}\nlast.svs\n"
        entries, wrong = read_table(touch(tmp_path / "t.csv", text.encode(errors="surrogateescape")), DEFAULTS)
        assert [entry.name for entry in entries] == ["good_ihc", "last_ihc"]
        [left_out] = wrong
        assert left_out.name == f"{tmp_path}/t.csv, line 3"
        assert re.search(words, left_out.reason)
        assert printable(left_out.reason) == left_out.reason

    @pytest.mark.parametrize(
        ("written", "name"),
        [
            ('"a\nb.svs"', "a\nb.svs"),
            ("sub\\a.svs", "sub/a.svs"),
            ("back\\slash.svs", "back\\slash.svs"),
            ("Pr\udce4parat.svs", "Pr\udce4parat.svs"),
            ('"a,b;c.svs"', "a,b;c.svs"),
        ],
    )
    def test_any_name_that_a_disk_can_hold_can_be_in_a_table(self, written: str, name: str, tmp_path: Path) -> None:
        touch(tmp_path / name)
        table = touch(tmp_path / "t.csv", f"slide,mpp\n{written},0.5\n".encode(errors="surrogateescape"))
        entries, wrong = read_table(table, DEFAULTS)
        assert ([entry.slide for entry in entries], wrong) == ([tmp_path / name], [])

    def test_tabs_separate_too(self, tmp_path: Path) -> None:
        [entry], _ = read_table(touch(tmp_path / "t.csv", b"slide\tmpp\na b.svs\t0,5\n"), DEFAULTS)
        assert (entry.slide.name, entry.settings.slide.mpp) == ("a b.svs", 0.5)


class TestRecipe:
    def test_only_what_changes_pixels_counts(self, tmp_path: Path) -> None:
        slide = touch(tmp_path / "a.svs")
        elsewhere = load_settings(
            ConversionSettings,
            None,
            {"compute.device": "cuda", "compute.threads": 3, "tiling.core_px": 2048, "compute.scheduler": "tcp://a:1"},
        )
        before = make_recipe(slide, DEFAULTS, "g 1")
        assert differences(before, make_recipe(slide, elsewhere, "g 1")) == []
        assert differences(before, make_recipe(slide, JPEG_70, "g 1")) == ["output.quality was 85, is 70"]
        assert differences(before, make_recipe(slide, DEFAULTS, "g 2")) == ["the generator has changed"]
        slide.write_bytes(b"y")
        assert differences(before, make_recipe(slide, DEFAULTS, "g 1")) == ["the slide has changed"]

    def test_a_setting_of_a_later_version_had_its_default(self, tmp_path: Path) -> None:
        now = make_recipe(touch(tmp_path / "a.svs"), DEFAULTS, "g 1")
        before = {key: value for key, value in now.items() if key != "output.quality"}
        assert differences(before, now) == []
        assert differences(before, now | {"output.quality": 70}) == ["output.quality was 85, is 70"]

    def test_an_edited_mask_counts(self, tmp_path: Path) -> None:
        slide, mask = touch(tmp_path / "a.svs"), touch(tmp_path / "mask.geojson")
        settings = load_settings(ConversionSettings, None, {"tissue.source": str(mask)})
        before = make_recipe(slide, settings, "g 1")
        mask.write_text("other")
        assert differences(before, make_recipe(slide, settings, "g 1"))


class TestClaims:
    def test_two_owners_cannot_have_one_slide(self, tmp_path: Path) -> None:
        first, second = Claims(tmp_path), Claims(tmp_path)
        assert first.take("a") is None
        owner = second.take("a")
        assert owner is not None
        assert f"process {os.getpid()} on" in str(owner)
        first.release("a")
        assert second.take("a") is None

    def test_a_dead_process_of_this_machine_is_followed_at_once(self, tmp_path: Path) -> None:
        code = "import sys, pathlib, wsi_ihc.batch.claims as c; c.Claims(pathlib.Path(sys.argv[1])).take('a')"
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
        assert (tmp_path / "a.lock").exists()
        assert Claims(tmp_path).owner("a") is None
        assert Claims(tmp_path).take("a") is None

    def test_a_process_id_that_was_given_again_is_another_process(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(claims_module, "birth", lambda process: "long ago")
            Claims(tmp_path).take("a")
        assert Claims(tmp_path).take("a") is None

    def test_another_machine_is_judged_by_its_heartbeat_and_our_own_clock(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(claims_module, "machine", lambda: "far away")
            theirs = Claims(tmp_path)
            theirs.take("a")
        now = 1000.0
        ours = Claims(tmp_path, stale_after_s=300, clock=lambda: now)
        os.utime(tmp_path / "a.lock", (0, 0))  # a clock that was set back: the file's time means nothing
        assert ours.take("a")
        now += 299
        assert ours.take("a")
        assert theirs.beat() == []
        now += 299
        assert ours.take("a")
        now += 299
        assert ours.take("a")
        now += 2
        assert ours.take("a") is None
        # It was only asleep; now it must notice, and leave the new owner alone.
        theirs.release("b")
        assert theirs.beat() == ["a"]
        theirs.release("a")
        assert ours.owner("a") is not None

    def test_a_claim_that_was_cut_off_while_written_grows_stale(self, tmp_path: Path) -> None:
        touch(tmp_path / "a.lock", b"")
        now = 0.0
        claims = Claims(tmp_path, clock=lambda: now)
        assert claims.take("a")
        now += 301
        assert claims.take("a") is None

    def test_births_tell_processes_apart(self) -> None:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        assert birth(child.pid) not in (None, birth(os.getpid()))
        child.communicate(b"\n")
        assert birth(child.pid) is None


class TestDecisions:
    @pytest.fixture
    def done(self, tmp_path: Path) -> tuple[Path, SlideRecord]:
        entries = slides(tmp_path, a="good")
        return tmp_path / "out" / "a_ihc.ome.tiff", work(entries, tmp_path / "out")["a_ihc"]

    def test_a_finished_slide_is_kept_until_something_changes(self, done: tuple[Path, SlideRecord]) -> None:
        output, record = done
        assert decide(output, record, record.recipe).action == "keep"
        changed = decide(output, record, dict(record.recipe) | {"output.quality": 70})
        assert (changed.action, changed.overwrite) == ("convert", True)
        assert "quality was 85, is 70" in changed.why

    def test_an_output_that_is_gone_or_cut_short_is_made_again(self, done: tuple[Path, SlideRecord]) -> None:
        output, record = done
        output.write_bytes(b"")
        assert decide(output, record, record.recipe).action == "convert"
        output.unlink()
        assert decide(output, record, record.recipe).why == "its output is gone"

    def test_what_no_batch_has_made_is_not_replaced_unasked(self, done: tuple[Path, SlideRecord]) -> None:
        output, record = done
        assert decide(output, None, record.recipe).action == "refuse"
        assert decide(output, None, record.recipe, overwrite=True).overwrite
        by_hand = record.model_copy(update={"sha256": "other"})
        assert "by hand" in decide(output, by_hand, record.recipe).why
        assert decide(output, by_hand, record.recipe, overwrite=True).action == "convert"

    def test_a_batch_that_died_before_it_wrote_done(self, done: tuple[Path, SlideRecord]) -> None:
        output, record = done
        running = record.model_copy(update={"state": "running", "sha256": None})
        assert decide(output, running, record.recipe).action == "adopt"
        # The old output of other settings is not the one that was being made.
        redone = running.model_copy(update={"replaces": record.sha256})
        assert (decide(output, redone, record.recipe).action, decide(output, redone, record.recipe).overwrite) == (
            "convert", True,
        )  # fmt: skip
        # Named, but not tidied up: the conversion finishes that by itself.
        output.with_name(output.name + ".blocks.zarr").mkdir()
        assert decide(output, running, record.recipe).overwrite is False

    def test_failures_are_tried_again_when_the_machine_was_to_blame(self, tmp_path: Path) -> None:
        output = tmp_path / "a.ome.tiff"
        record = SlideRecord(slide="a", output="a", state="failed", reason="bad", retry=False, recipe={"source": "1"})
        assert decide(output, record, {"source": "1"}).action == "convert", "another version may know better"
        record = record.model_copy(update={"version": version("wsi-ihc")})
        assert decide(output, record, {"source": "1"}).action == "leave"
        assert decide(output, record, {"source": "1"}, retry_failed=True).action == "convert"
        assert decide(output, record, {"source": "2"}).action == "convert"
        assert decide(output, record.model_copy(update={"retry": True}), {"source": "1"}).action == "convert"


class TestRun:
    def test_every_slide_is_attempted_and_each_costs_only_itself(self, tmp_path: Path) -> None:
        entries = slides(tmp_path / "in", a="good", b="damaged", c="crashes", d="starves", e="crowded", f="good")
        entries.append(Entry(tmp_path / "gone.svs", "gone_ihc", DEFAULTS))
        out = tmp_path / "out"
        results = work(entries, out, BatchOptions(jobs=2))
        assert {name: record.state for name, record in results.items()} == {
            "a_ihc": "done", "b_ihc": "failed", "c_ihc": "failed", "d_ihc": "failed", "e_ihc": "failed",
            "f_ihc": "done", "gone_ihc": "failed",
        }  # fmt: skip
        assert results["a_ihc"].megapixels == 2.5
        assert "cannot be read" in results["b_ihc"].reason
        assert "SIGSEGV" in results["c_ihc"].reason
        assert "memory" in results["d_ihc"].reason
        assert results["e_ihc"].reason == "the disk is full"
        assert "opening" in Records(out).path("c_ihc", ".log").read_text()
        assert not list(Records(out).folder.glob("*.lock"))

        again = Listener()
        (out / "e_ihc.ome.tiff.room").touch()
        results = work(entries, out, listener=again)
        # The damaged, the crashing and the missing one are left; what the machine was to blame for is tried again.
        assert [line.split()[0] for line in again.heard] == ["d_ihc", "e_ihc"]
        assert results["e_ihc"].state == "done"
        assert (results["b_ihc"].attempts, results["d_ihc"].attempts) == (1, 2)

        touch(tmp_path / "gone.svs", b"good")
        results = work(entries, out, BatchOptions(retry_failed=True))
        assert results["gone_ihc"].state == "done"
        assert (results["a_ihc"].attempts, results["b_ihc"].attempts) == (1, 2)

    def test_changed_settings_are_done_anew_with_a_reason(self, tmp_path: Path) -> None:
        work(slides(tmp_path / "in", a="good"), tmp_path / "out")
        listener = Listener()
        results = work(slides(tmp_path / "in", JPEG_70, a="good"), tmp_path / "out", listener=listener)
        assert listener.heard == ["a_ihc starts: output.quality was 85, is 70"]
        assert results["a_ihc"].state == "done"
        assert (tmp_path / "out" / "a_ihc.ome.tiff").read_text() == "quality 70 overwrite"
        assert "quality was 85" in Records(tmp_path / "out").path("a_ihc", ".log").read_text()

    def test_a_child_that_hangs_is_ended(self, tmp_path: Path) -> None:
        started = time.monotonic()
        results = work(
            slides(tmp_path / "in", a="hangs", b="good"), tmp_path / "out", BatchOptions(limits=Limits(timeout_s=0.5))
        )
        assert "longer than" in results["a_ihc"].reason
        assert not results["a_ihc"].retry
        assert results["b_ihc"].state == "done"
        assert time.monotonic() - started < 20

    def test_where_interrupts_are_ignored_a_child_still_hears_ours(self, tmp_path: Path) -> None:
        """As in the background of a script."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            work(slides(tmp_path / "in", a="hangs"), tmp_path / "out", BatchOptions(limits=Limits(timeout_s=0.5)))
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGINT, before)
        # Killed after the time of grace it would have said nothing.
        assert "KeyboardInterrupt" in Records(tmp_path / "out").path("a_ihc", ".log").read_text()

    def test_a_disk_that_fills_up_ends_the_run_in_good_order(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        entries = slides(tmp_path / "in", a="good", b="hangs", c="good")
        write = Records.write

        def fills_up(records: Records, name: str, record: SlideRecord) -> None:
            if record.state == "done":
                raise StorageError("the disk is full")
            write(records, name, record)

        with monkeypatch.context() as patch:
            patch.setattr(Records, "write", fills_up)
            patch.setattr(Records, "is_writable", lambda records: False)
            with pytest.raises(StorageError, match="full"):
                work(entries, tmp_path / "out", BatchOptions(jobs=2))
        assert {name: record.state for name, record in read_cohort(Records(tmp_path / "out")).items()} == {
            "a_ihc": "waiting", "b_ihc": "waiting", "c_ihc": "waiting",
        }  # fmt: skip
        (tmp_path / "in" / "b.svs").write_text("good")
        results = work(entries, tmp_path / "out")
        # The first had been finished: what its record could not say, output and sidecar do.
        assert (results["a_ihc"].state, results["a_ihc"].attempts) == ("done", 1)
        assert {record.state for record in results.values()} == {"done"}

    def test_a_lost_cluster_ends_the_run_and_blames_no_slide(self, tmp_path: Path) -> None:
        entries = slides(tmp_path / "in", a="good", b="unconnected", c="good")
        with pytest.raises(ClusterError, match="the dask scheduler is lost"):
            work(entries, tmp_path / "out")
        cohort = read_cohort(Records(tmp_path / "out"))
        assert {name: record.state for name, record in cohort.items()} == {
            "a_ihc": "done", "b_ihc": "waiting", "c_ihc": "waiting",
        }  # fmt: skip
        assert "is lost" in cohort["b_ihc"].reason
        (tmp_path / "in" / "b.svs").write_text("good")
        results = work(entries, tmp_path / "out")
        assert {record.state for record in results.values()} == {"done"}

    def test_two_batches_on_one_folder_share_the_work(self, tmp_path: Path) -> None:
        entries = slides(tmp_path / "in", **{f"s{number}": "slow" for number in range(6)})
        outcomes: list[dict[str, SlideRecord]] = []
        threads = [threading.Thread(target=lambda: outcomes.append(work(entries, tmp_path / "out"))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(outcomes) == 2
        for results in outcomes:
            assert {record.state for record in results.values()} == {"done"}
            assert {record.attempts for record in results.values()} == {1}

    def test_children_share_the_machine(self) -> None:
        assert BatchOptions().seats() == [{}]
        seats = BatchOptions(gpus=("0", "3")).seats()
        assert [seat["CUDA_VISIBLE_DEVICES"] for seat in seats] == ["0", "3", "0", "3"]
        assert all(int(seat["OMP_NUM_THREADS"]) >= 1 for seat in seats)
        with pytest.raises(SettingsError, match="2 GPUs"):
            BatchOptions(jobs=5, gpus=("0", "3"))
        assert [seat["CUDA_VISIBLE_DEVICES"] for seat in BatchOptions(jobs=1, gpus=("0", "3")).seats()] == ["0"]

    def test_which_gpus_there_are(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        listing = tmp_path / "nvidia-smi"
        listing.write_text("#!/bin/sh\necho 'GPU 0: A100 (UUID: GPU-1)'\necho 'GPU 1: A100 (UUID: GPU-2)'\n")
        listing.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        assert _gpus("all", DEFAULTS) == ("0", "1")
        # A queueing system has given two of them to this job.
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
        assert _gpus("all", DEFAULTS) == ("2", "5")
        assert _gpus("5", DEFAULTS) == ("5",)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        with pytest.raises(SettingsError, match="no GPU was found"):
            _gpus("all", DEFAULTS)

    def test_the_command_carries_every_setting(self) -> None:
        settings = load_settings(ConversionSettings, None, {"slide.mpp": 0.25, "tissue.source": "a 'b'.geojson"})
        command = convert_command(Path("/a.svs"), Path("out.ome.tiff"), settings, True)
        assignments = tuple(command[index + 1] for index, word in enumerate(command) if word == "--set")
        assert load_settings(ConversionSettings, assignments=assignments) == settings
        assert command[-1] == "--overwrite"


# A batch in a process of its own, so that it can be killed.
BATCH = """
import sys
from pathlib import Path
from tests.test_batch import Listener, slides, work
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
entries = slides(Path(sys.argv[1]), a="good", b="hangs", c="good")
try:
    work(entries, Path(sys.argv[2]))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_batch_that_ends_leaves_everything_to_be_continued(number: signal.Signals, tmp_path: Path) -> None:
    out = tmp_path / "out"
    batch = subprocess.Popen(
        [sys.executable, "-c", BATCH, str(tmp_path / "in"), str(out)], cwd=Path(__file__).parents[1]
    )
    _wait(lambda: (record := Records(out).read("b_ihc")) is not None and record.state == "running")
    batch.send_signal(number)
    code = batch.wait(30)
    if sys.platform == "linux":
        _wait(lambda: not _working_in(tmp_path))  # no child is left behind, however the batch ends
    record = Records(out).read("b_ihc")
    assert record is not None
    if number == signal.SIGKILL:
        assert record.state == "running"  # nobody could write otherwise; who reads it sees that its owner is dead
    else:
        assert code == 130
        assert (record.state, record.reason) == ("waiting", "interrupted")
    assert {name: record.state for name, record in read_cohort(Records(out)).items()} == {
        "a_ihc": "done", "b_ihc": "waiting", "c_ihc": "waiting",
    }  # fmt: skip
    (tmp_path / "in" / "b.svs").write_text("good again")
    entries = [Entry(tmp_path / "in" / f"{name}.svs", f"{name}_ihc", DEFAULTS) for name in "abc"]
    results = work(entries, out)
    assert {record.state for record in results.values()} == {"done"}
    assert results["a_ihc"].attempts == 1


def _working_in(folder: Path) -> list[int]:
    """The processes whose command line names something in ``folder``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            if os.fsencode(folder) in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


def _wait(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


class TestPreflight:
    def test_a_disk_that_is_too_small(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        entries = slides(tmp_path, a="x" * 1000, b="x" * 500)
        usage = SimpleNamespace(free=2400)
        monkeypatch.setattr("wsi_ihc.batch.preflight.shutil.disk_usage", lambda path: usage)
        with pytest.raises(StorageError, match="--no-space-check"):
            check_space(entries, tmp_path, 1)
        check_space(entries[1:], tmp_path, 1)

    @pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
    def test_a_folder_that_is_read_only(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(StorageError, match="cannot be"):
            check_folder(tmp_path)

    def test_a_folder_that_cannot_be(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="cannot be made"):
            check_folder(touch(tmp_path / "file") / "out")

    def test_another_cohort_has_used_the_name(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        work(slides(tmp_path / "monday", a="good"), out)
        moved = slides(tmp_path / "moved", a="good")
        check_owners(moved, out)
        with pytest.raises(SettingsError, match="was made from"):
            check_owners(slides(tmp_path / "tuesday", a="good too"), out)


class TestCache:
    def test_copies_are_used_and_removed(self, tmp_path: Path) -> None:
        entries = slides(tmp_path / "in", **{f"s{number}": "good" for number in range(4)})
        results = work(entries, tmp_path / "out", BatchOptions(cache=tmp_path / "cache"))
        assert {record.state for record in results.values()} == {"done"}
        assert "cache" in Records(tmp_path / "out").path("s2_ihc", ".log").read_text()
        assert list((tmp_path / "cache").iterdir()) == []

    def test_it_is_bounded_and_a_larger_slide_is_read_in_place(self, tmp_path: Path) -> None:
        cache = Cache.open(tmp_path / "cache", 100)
        small, large = touch(tmp_path / "a.svs", bytes(60)), touch(tmp_path / "b.svs", bytes(101))
        copy = cache.fetch("a", small).result(10)
        assert copy != small
        assert copy.read_bytes() == small.read_bytes()
        assert not cache.has_room(small)
        assert cache.has_room(large)
        assert cache.fetch("b", large).result(10) == large
        cache.remove("a")
        assert cache.has_room(small)
        cache.close()
        assert list((tmp_path / "cache").iterdir()) == []

    def test_a_slide_of_many_files_comes_whole(self, tmp_path: Path) -> None:
        cache = Cache.open(tmp_path / "cache", None)
        mirax, dicom = touch(tmp_path / "m.mrxs"), touch(tmp_path / "d" / "1.dcm").parent
        touch(tmp_path / "m" / "Data0.dat")
        assert (cache.fetch("m", mirax).result(10).with_suffix("") / "Data0.dat").exists()
        assert (cache.fetch("d", dicom).result(10) / "1.dcm").exists()
        cache.close()

    def test_what_a_killed_batch_left_is_removed(self, tmp_path: Path) -> None:
        code = "import sys, pathlib, wsi_ihc.batch.prefetch as p; p.Cache.open(pathlib.Path(sys.argv[1]), 9)"
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
        assert len(list(tmp_path.iterdir())) == 1
        Cache.open(tmp_path, 9).close()
        assert list(tmp_path.iterdir()) == []


class TestSeeing:
    @pytest.fixture
    def out(self, tmp_path: Path) -> Path:
        work(slides(tmp_path / "in", **{"a": "good", "<b>": "damaged"}), tmp_path / "out")
        return tmp_path / "out"

    def test_three_summaries(self, out: Path) -> None:
        told = json.loads((out / "summary.json").read_text())
        assert (told["done"], told["failed"], told["total"]) == (1, 1, 2)
        with (out / "summary.csv").open() as stream:
            assert [row["state"] for row in csv.DictReader(stream)] == ["failed", "done"]
        page = (out / "index.html").read_text()
        assert "&lt;b&gt;.svs" in page
        assert "<b>.svs" not in page
        assert "cannot be read" in page
        assert "http" not in page

    def test_a_real_output_is_pictured(self, out: Path, small_slide: Path) -> None:
        from wsi_ihc.batch.thumbnails import keep_thumbnail

        keep_thumbnail(small_slide, Records(out).path("a_ihc", ".jpg"))
        write_summary(Records(out))
        assert 'src=".wsi-ihc/a_ihc.jpg"' in (out / "index.html").read_text()
        assert (out / ".wsi-ihc" / "a_ihc.jpg").read_bytes().startswith(b"\xff\xd8")

    def test_status(self, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert _run(["status", str(out)]) == 0
        said = capsys.readouterr().out
        assert "2 slides: 1 done, 0 running, 1 failed, 0 waiting" in said
        assert "cannot be read" in said
        assert _run(["status", str(out), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["failed"] == 1
        assert _run(["status", str(out), "--watch"]) == 0
        assert _run(["status", str(out.parent)]) == 6

    def test_the_time_that_is_left(self) -> None:
        done = SlideRecord(slide="a", output="a", state="done", seconds=10, megapixels=20, source_bytes=100)
        waiting = SlideRecord(slide="b", output="b", source_bytes=300)
        assert tally({}).remaining_s is None
        found = tally({"a": done, "b": waiting})
        assert (found.megapixels_per_s, found.remaining_s) == (2.0, 30)

    def test_displays(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        entry = Entry(Path("[a].svs"), "a_ihc", DEFAULTS)
        record = SlideRecord(slide="[a].svs", output="a", state="failed", reason="[bad]")
        for terminal in (False, True):
            monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal, raising=False)
            with batch_display(quiet=False) as display:
                display.begin(2)
                display.started(entry, "continues")
                display.said(entry, "3/8 blocks, 1.00 Mpx/s")
                display.ended(entry, record, news=True)
            said = capsys.readouterr().err
            assert "[a].svs: failed: [bad]" in said
        with batch_display(quiet=True) as display:
            display.note("nothing")
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{folder}/a.svs", "--shard", "3/2"], 2, "--shard 3/2"),
        (["{folder}/a.svs", "--gpus", "0,0"], 2, "--gpus"),
        (["{folder}/a.svs", "--gpus", "0", "--device", "cpu"], 2, "--device cpu"),
        (["{folder}/a.svs", "--gpus", "0", "--scheduler", "tcp://a:1"], 2, "--gpus"),
        (["{folder}/a.svs", "--cache", "c", "--scheduler", "tcp://a:1"], 2, "--cache"),
        (["{folder}/a.svs", "--scheduler", "tcp://127.0.0.1:1"], 10, "no dask scheduler answers"),
        (["{folder}"], 2, "without slides"),
        ([], 2, "no slides"),
        (["{folder}/a.svs", "--set", "tiling.core=3"], 2, "tiling.core"),
    ],
)
def test_mistakes_are_told_before_the_first_slide(
    arguments: list[str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    given = [argument.format(folder=folder) for argument in arguments]
    assert _run(["batch", *given, "-o", str(tmp_path / "out")]) == code
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command_itself_killed_and_continued(tmp_path: Path) -> None:
    """Real conversions: a sound slide killed with its batch, a damaged one, and the page in the end."""
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    write_slide(source / "sound.tiff", stained_island(3000, 3000))
    touch(source / "torn.svs", b"II*\0\x08\0\0\0")
    command = [sys.executable, "-m", "wsi_ihc", "batch", str(source), "-o", str(out), "--generator", "identity"]
    command += ["--set", "tiling.core_px=512"]
    store = out / "sound_ihc.ome.tiff.blocks.zarr" / "blocks"
    batch = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    _wait(lambda: store.exists() and any(name[0].isdigit() for name in os.listdir(store)))
    batch.kill()
    batch.wait()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1, done.stderr
    assert "missing" not in done.stderr
    assert "torn.svs" in done.stdout
    assert "1 of 2 slides done" in done.stdout
    cohort = read_cohort(Records(out))
    assert (cohort["sound_ihc"].state, cohort["sound_ihc"].attempts) == ("done", 2)
    assert cohort["torn_ihc"].state == "failed"
    assert tifffile.imread(out / "sound_ihc.ome.tiff").shape == (3000, 3000, 3)
    assert Records(out).path("sound_ihc", ".jpg").exists()
    (source / "torn.svs").unlink()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0
    assert "sound.tiff: done already" in done.stderr
