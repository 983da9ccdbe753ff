"""Damaged and hostile files: each ends in a result or in one line and an exit code, soon, the interpreter alive.

Every file is converted by the command line's own entry point in a forked child, so that a crash is seen as one.
``WSI_IHC_MUTATIONS=400 pytest tests/test_hostile_files.py`` tries more than the default.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import stained_island, write_slide

MUTATIONS = int(os.environ.get("WSI_IHC_MUTATIONS", "40"))
DEADLINE_S = 30

# Children are forked from a fresh process that has everything loaded and no threads: imports cost seconds each, and a
# fork of the tests' own process, whose OpenMP threads stay behind, would hang.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["wsi_ihc.cli.convert", "wsi_ihc.convert", "wsi_ihc.slides.dicom", "wsi_ihc.slides.tiffslide"]
)


@dataclass(frozen=True)
class Outcome:
    """How one conversion ended: exit code (negative: the signal that ended it), what it said, how long it took."""

    code: int
    said: str
    seconds: float

    def problem(self, output: Path) -> str | None:
        """What is wrong with this ending, or None."""
        if self.code < 0:
            return f"ended by {signal.Signals(-self.code).name}"
        if self.seconds > DEADLINE_S:
            return f"took {self.seconds:.0f} s"
        if "Traceback" in self.said or "internal error" in self.said:
            return f"traceback: {self.said}"
        if self.code == 0:
            return None if output.exists() else "said that all is well, but wrote nothing"
        if output.exists():
            return "failed, but left an output"
        lines = [line for line in self.said.splitlines() if line.startswith("wsi-ihc: ")]
        return None if len(lines) == 1 else f"expected one line, got {self.said!r}"


def convert_in_a_child(slide: Path, output: Path) -> Outcome:
    """``wsi-ihc convert`` of ``slide`` in a forked process that a crash or a hang cannot take us down with."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = FORKS.Process(target=_convert, args=(slide, output, sender))
    started = time.monotonic()
    child.start()
    sender.close()
    child.join(DEADLINE_S + 5)
    seconds = time.monotonic() - started
    if child.is_alive():
        child.kill()
        child.join()
    try:
        said = receiver.recv() if receiver.poll() else ""
    except EOFError:  # it ended without a word
        said = ""
    assert child.exitcode is not None
    return Outcome(child.exitcode, said, seconds)


def _convert(slide: Path, output: Path, sender: Connection) -> None:
    from wsi_ihc.cli import _run

    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        options = ["--generator", "identity", "--quiet", "--mpp", "0.5", "--tissue", "none"]
        code = _run(["convert", str(slide), "-o", str(output), *options])
    sender.send(said.getvalue()[-2000:])
    sys.stdout.flush()
    os._exit(code)


def mutations(original: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Cuts, flipped bits, zeroed and overwritten runs; half of them in the first kilobytes, where headers are."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        data = bytearray(original)
        reach = len(data) if number % 2 else min(len(data), 4096)
        at = int(generator.integers(reach))
        match number % 5:
            case 0:
                name, data = "cut", data[: int(generator.integers(len(data)))]
            case 1 | 2:
                name = "flip"
                for position in generator.integers(reach, size=int(generator.integers(1, 64))):
                    data[position] ^= 1 << int(generator.integers(8))
            case 3:
                name = "zero"
                length = min(int(generator.integers(1, 2048)), len(data) - at)
                data[at : at + length] = bytes(length)
            case _:
                name = "noise"
                length = min(int(generator.integers(1, 256)), len(data) - at)
                data[at : at + length] = generator.bytes(length)
        yield f"{number:04d}_{name}", bytes(data)


def _survey(files: list[Path], folder: Path) -> dict[str, str]:
    problems = {}
    for number, file in enumerate(files):
        output = folder / f"{number}.ome.tiff"
        if problem := convert_in_a_child(file, output).problem(output):
            problems[file.name] = problem
        for entry in folder.glob(f"*{number}.ome.tiff*"):
            if entry.is_file():
                entry.unlink()
    return problems


def _mutated(original: Path, folder: Path, seed: int) -> list[Path]:
    files = []
    for name, data in mutations(original.read_bytes(), MUTATIONS, seed):
        files.append(folder / f"{name}{original.suffix}")
        files[-1].write_bytes(data)
    return files


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_mutations_of_an_ome_tiff(tmp_path: Path) -> None:
    slide, original = tmp_path / "slide.tiff", tmp_path / "original.ome.tiff"
    write_slide(slide, stained_island(700, 900))
    assert convert_in_a_child(slide, original).code == 0
    assert _survey(_mutated(original, tmp_path, seed=1), tmp_path) == {}


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.timeout(3600)
def test_mutations_of_an_svs(shared_data: Path, tmp_path: Path) -> None:
    original = shared_data / "slides/aperio_svs_cmu1_small_region/CMU-1-Small-Region.svs"
    assert _survey(_mutated(original, tmp_path, seed=2), tmp_path) == {}


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.timeout(3600)
def test_odd_files(shared_data: Path, tmp_path: Path) -> None:
    files = sorted(file for file in (shared_data / "odd").rglob("*") if file.is_file())
    assert files
    assert _survey(files, tmp_path) == {}
