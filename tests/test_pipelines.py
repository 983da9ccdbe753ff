"""The pipelines, run as a person runs them; SLURM is played by two scripts that start and end processes here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import stained_island, write_slide

PIPELINES = Path(__file__).parents[1] / "pipelines"

SBATCH = """#!/bin/bash
cd "{folder}"
if [ "$1" = --test-only ]; then
    cat > script
    [ ! -e refuses ] || {{ echo "sbatch: error: invalid partition specified: nosuch" >&2; exit 1; }}
elif mv down was_down 2>/dev/null; then
    echo "sbatch: error: Batch job submission failed: Unable to contact slurm controller" >&2; exit 1
else
    cp "$1" job; setsid bash job >worker.log 2>&1 & echo "Submitted batch job $!"
fi
"""
SCANCEL = """#!/bin/bash
for job in "$@"; do kill -- "-$job" 2>/dev/null; done; true
"""


def run(pipeline: str, *arguments: object, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"PATH": f"{path}{os.pathsep}{os.environ['PATH']}"} if path else {})
    command = [sys.executable, str(PIPELINES / pipeline), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=240)


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """A folder of one slide."""
    folder = tmp_path / "slides"
    folder.mkdir()
    write_slide(folder / "a.tiff", stained_island(400, 500))
    return folder


@pytest.fixture
def slurm(tmp_path: Path) -> Path:
    """A folder with ``sbatch`` and ``scancel``."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (folder / name).write_text(text.format(folder=folder) if name == "sbatch" else text)
        (folder / name).chmod(0o755)
    return folder


def slurm_cohort(slides: Path, slurm: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("dask_jobqueue")
    workers = ("--workers", 1, "--cores", 1, "--memory", "1GB", "--interface", "lo", "--logs", slurm / "logs")
    return run(
        "slurm_cohort.py", *workers, "--", slides, "-o", slides.parent / "out", "--generator", "identity", path=slurm
    )


def test_slurm_runs_the_workers_even_where_it_does_not_answer_at_first(slides: Path, slurm: Path) -> None:
    (slurm / "down").touch()
    ended = slurm_cohort(slides, slurm)
    assert ended.returncode == 0, ended.stderr
    assert "a worker could not be queued, trying again: Batch job submission failed" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert (slides.parent / "out" / "a_ihc.ome.tiff").exists()


def test_workers_that_slurm_refuses_are_one_line(slides: Path, slurm: Path) -> None:
    (slurm / "refuses").touch()
    ended = slurm_cohort(slides, slurm)
    assert ended.returncode == 2
    assert ended.stderr == "slurm_cohort: SLURM does not take such workers: invalid partition specified: nosuch\n"


def test_a_cohort_is_stained_and_checked(slides: Path, tmp_path: Path) -> None:
    (slides / "b.tiff").write_bytes(b"no slide")
    ended = run("cohort.py", slides, "-o", tmp_path / "out", "--generator", "identity")
    assert ended.returncode == 1
    assert "a.tiff: done" in ended.stdout
    assert "b.tiff: failed" in ended.stdout
    assert (tmp_path / "out" / "a_ihc.ome.tiff").exists()


def test_from_pairs_to_slides_and_not_twice(slides: Path, tmp_path: Path) -> None:
    data, work, config = tmp_path / "pairs", tmp_path / "work", tmp_path / "tiny.yaml"
    draw = ("phantom", "-o", data, "--pairs", "8", "--size", "64x64", "--split", "0.5,0.5", "--quiet")
    subprocess.run([sys.executable, "-m", "wsi_ihc", *map(str, draw)], check=True)
    config.write_text(
        "network: {kind: resnet, blocks: 1, base_channels: 4}\n"
        "discriminator: {base_channels: 4}\n"
        "data: {crop_px: 32, batch_size: 2}\n"
        "schedule: {unit: steps, constant: 1, decay: 1}\n"
    )
    arguments = (config, "--data", data, "--slides", slides, "-o", work, "--device", "cpu")
    ended = run("train_evaluate_convert.py", *arguments)
    assert ended.returncode == 0, ended.stderr
    assert (work / "report" / "report.html").exists()
    assert (work / "stained" / "a_ihc.ome.tiff").exists()
    again = run("train_evaluate_convert.py", *arguments)
    assert again.returncode == 0, again.stderr
    assert "$ wsi-ihc train" not in again.stdout
