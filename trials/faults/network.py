"""Faults of the clock, of the network and of a cluster's machines. Each trial returns its line of the table."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from trials.faults.kills import Ground, Row, row
from trials.faults.processes import Conversion, cluster, convert

_DAY_S = 86_400
_FAKETIME = Path("/usr/lib") / (os.uname().machine + "-linux-gnu") / "faketime" / "libfaketime.so.1"


def clock_set_back(ground: Ground) -> Row:
    """Killed at noon, continued at noon of the day before, with files from tomorrow in the store."""
    output = ground.output("clock back")
    first = Conversion.start(ground.slide, output)
    first.wait_for_blocks(5)
    first.kill()
    first.end()
    tomorrow = time.time() + _DAY_S
    for file in first.store.rglob("*"):
        os.utime(file, (tomorrow, tomorrow))
    ended = Conversion.start(ground.slide, output, environment={"LD_PRELOAD": str(_FAKETIME), "FAKETIME": "-1d"}).end()
    return row(
        "clock a day back between kill and resume, files of the store from tomorrow",
        [ended], [], 0, output.read_bytes() == ground.truth, "",
    )  # fmt: skip


def clock_jumps(ground: Ground) -> Row:
    """While it works the time of day jumps a day ahead and two days back."""
    output, clock = ground.output("clock jumps"), ground.folder / "clock"
    clock.write_text("+0")
    faked = {"FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    faked |= {"LD_PRELOAD": str(_FAKETIME), "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "5s"}
    running = Conversion.start(ground.slide, output, environment=faked)
    for offset in ("+1d", "-1d"):
        running.wait_for_blocks(running.blocks() + 10)
        clock.write_text(offset)
    ended = running.end()
    return row(
        "clock a day ahead, then two days back, while it works", [ended], [], 0,
        ground.reached(ended, output), "",
    )  # fmt: skip


def stopped(ground: Ground) -> Row:
    """Ctrl-Z, or a laptop that sleeps, for longer than dask takes workers for alive."""
    output = ground.output("stopped")
    running = Conversion.start(ground.slide, output, environment={"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "3s"})
    running.wait_for_blocks(2)
    running.signal(signal.SIGSTOP)
    time.sleep(12)
    running.signal(signal.SIGCONT)
    ended = running.end()
    return row(
        "a conversion stopped (SIGSTOP) for four times as long as dask takes a silent worker for alive", [ended], [], 0,
        ground.reached(ended, output), "",
    )  # fmt: skip


def lonely_worker(ground: Ground) -> Row:
    """One of two workers is killed and nobody replaces it."""
    output = ground.output("lonely")
    with cluster(ground.folder / "lonely", nanny=False) as there:
        running = Conversion.start(ground.slide, output, "--set", f"compute.scheduler={there.address}")
        running.wait_for_blocks(3)
        there.workers[0].kill()
        ended = running.end()
    same = ground.reached(ended, output)
    return row("one of two workers killed in mid-slide, not replaced", [ended], [], 0, same, "the other finished")


def nobody_for_a_while(ground: Ground) -> Row:
    """All workers are killed; after a while others come."""
    output = ground.output("nobody")
    with cluster(ground.folder / "nobody", nanny=False) as there:
        running = Conversion.start(ground.slide, output, "--set", f"compute.scheduler={there.address}", quiet=False)
        running.wait_for_blocks(3)
        there.stop_workers()
        time.sleep(8)
        there.start_worker()
        ended = running.end()
    same = ground.reached(ended, output)
    line = next((line for line in ended.said if "no worker" in line), "").removeprefix("wsi-ihc: ")
    return row(
        "all workers killed in mid-slide, another comes 8 s later", [ended], [line], 0,
        same and bool(line), "",
    )  # fmt: skip


def worker_cut_off(ground: Ground) -> Row:
    """A worker stops answering in mid-slide, and wakes when the slide is done."""
    output = ground.output("cut off")
    with cluster(ground.folder / "cut-off", DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="8s", nanny=False) as there:
        running = Conversion.start(ground.slide, output, "--set", f"compute.scheduler={there.address}")
        running.wait_for_blocks(3)
        there.workers[0].send_signal(signal.SIGSTOP)
        ended = running.end()
        there.workers[0].send_signal(signal.SIGCONT)
        time.sleep(2)
        same = ground.reached(ended, output) and not running.store.exists()
    return row(
        "network cut: a worker stopped (SIGSTOP) in mid-slide, awake again afterwards", [ended], [], 0, same,
        f"finished by the other in {ended.seconds:.0f} s, 8 s of them until dask gave the worker up (it takes five "
        "minutes when not told otherwise)",
    )  # fmt: skip


def scheduler_cut_off(ground: Ground) -> Row:
    """The scheduler stops answering in mid-slide."""
    output = ground.output("deaf")
    with cluster(ground.folder / "deaf") as there:
        options = ("--set", f"compute.scheduler={there.address}")
        running = Conversion.start(ground.slide, output, *options)
        running.wait_for_blocks(3)
        assert there.scheduler
        there.scheduler.send_signal(signal.SIGSTOP)
        before = running.seconds_since_start()
        ended = running.end()
        there.scheduler.send_signal(signal.SIGCONT)
        same = ground.reached(convert(ground.slide, output, *options), output)
    line = ended.line
    return row(
        "network cut: the scheduler stopped (SIGSTOP) in mid-slide, awake again afterwards", [ended], [line], 10, same,
        f"after {ended.seconds - before:.0f} s; then the same command continued",
    )  # fmt: skip


def sleeper_of_an_earlier_run(ground: Ground) -> Row:
    """A worker sleeps in the middle of a block, its run is killed, and wakes while a run with other settings works."""
    output = ground.output("sleeper")
    other = ground.output("quality 60")
    convert(ground.slide, other, "--quality", "60")
    with cluster(ground.folder / "sleeper", nanny=False, DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="8s") as there:
        options = ("--set", f"compute.scheduler={there.address}")
        first = Conversion.start(ground.slide, output, *options)
        first.wait_for_blocks(3)
        there.workers[0].send_signal(signal.SIGSTOP)
        first.kill()
        first.end()
        second = Conversion.start(ground.slide, output, *options, "--quality", "60")
        second.wait_for_blocks(60)
        there.workers[0].send_signal(signal.SIGCONT)
        ended = second.end()
    same = ended.code == 0 and output.read_bytes() == other.read_bytes()
    return row(
        "a worker sleeps, its run is killed; it wakes while a run with another JPEG quality works on that output",
        [ended], [], 0, same, "nothing was mixed",
    )  # fmt: skip
