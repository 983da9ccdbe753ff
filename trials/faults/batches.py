"""Faults of whole batches: two on one folder, one killed; a scheduler that dies under one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from trials.faults.kills import Ground, Row, row
from trials.faults.processes import CORE_PX, LIMIT_S, Outcome, cluster, convert, wait_until

_SLIDES = 4


def two_batches(ground: Ground) -> Row:
    """Two batches on one folder; the first is killed in its first slide, with its child."""
    slides, out = _slides(ground), ground.folder / "two-batches"
    shutil.rmtree(out, ignore_errors=True)
    first = _start(slides, out)
    wait_until(lambda: any(_blocks(out)))
    second = _start(slides, out)
    wait_until(lambda: sum(record["state"] in ("running", "done") for record in _records(out)) >= 2)
    first.kill()
    first.communicate()
    ended = _end(second)
    records = _records(out)
    same = ended.code == 0 and [record["state"] for record in records] == ["done"] * _SLIDES
    same &= all(_same_as_alone(ground, slide, out) for slide in slides)
    same &= not list((out / ".wsi-ihc").glob("*.lock"))
    attempts = sorted(record["attempts"] for record in records)
    return row(
        f"two batches on one folder of {_SLIDES} slides, one of them killed in its first slide", [ended], [], 0, same,
        f"the other took that slide over and finished all; attempts {', '.join(map(str, attempts))}",
    )  # fmt: skip


def batch_without_scheduler(ground: Ground) -> Row:
    """The scheduler is killed in the first of several slides, started again, and the command repeated."""
    slides, out = _slides(ground), ground.folder / "batch-scheduler"
    shutil.rmtree(out, ignore_errors=True)
    with cluster(ground.folder / "batch-cluster", nanny=False) as there:
        batch = _start(slides, out, "--scheduler", there.address)
        wait_until(lambda: any(_blocks(out)))
        there.kill_scheduler()
        ended = _end(batch)
        states = {record["state"] for record in _records(out)}
        early = _end(_start(slides, out, "--scheduler", there.address))
        there.stop_workers()
        there.start_scheduler()
        there.start_worker()
        again = _end(_start(slides, out, "--scheduler", there.address))
    same = "failed" not in states and early.code == 10 and again.code == 0
    same &= all(_same_as_alone(ground, slide, out) for slide in slides)
    return row(
        "the scheduler of a batch killed in its first slide; the batch tried again without it, and with it",
        [ended, early], [ended.line, early.line], 10, same, "no slide counted as failed; with it all were finished",
    )  # fmt: skip


def _slides(ground: Ground) -> list[Path]:
    """The slide under several names."""
    folder = ground.folder / "cohort"
    folder.mkdir(exist_ok=True)
    slides = [folder / f"slide{number}.tiff" for number in range(_SLIDES)]
    for slide in slides:
        shutil.copyfile(ground.slide, slide)
    return slides


def _start(slides: list[Path], out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-m", "wsi_ihc", "batch", *map(str, slides), "-o", str(out), "--quiet"]
    command += ["--generator", "identity", "--set", f"tiling.core_px={CORE_PX}", *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def _end(batch: subprocess.Popen[str]) -> Outcome:
    _, said = batch.communicate(timeout=3 * LIMIT_S)
    return Outcome(batch.returncode, tuple(line for line in said.splitlines() if line.strip()), 0.0)


def _records(out: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(path.read_bytes()) for path in sorted((out / ".wsi-ihc").glob("*.json"))]
    except (OSError, ValueError):
        return []  # one was being replaced


def _blocks(out: Path) -> list[str]:
    """Finished blocks of all stores."""
    found = []
    for marks in out.glob("*.blocks.zarr/blocks"):
        try:
            found += [name for name in os.listdir(marks) if name[0].isdigit()]
        except OSError:
            continue
    return found


def _same_as_alone(ground: Ground, slide: Path, out: Path) -> bool:
    alone = ground.folder / "alone" / f"{slide.stem}_ihc.ome.tiff"
    if not alone.exists():
        alone.parent.mkdir(exist_ok=True)
        assert convert(slide, alone).code == 0
    return alone.read_bytes() == (out / alone.name).read_bytes()
