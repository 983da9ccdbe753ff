"""pix2pix, pyramid pix2pix and the variance-penalised GAN on the same drawn tissue: trained, judged, written up.

python -m trials.losses             about an hour on two quiet cores; stop and start it as you like
python -m trials.losses --report    only writes docs/results/comparison.md from the results that are there
python -m trials.losses --scale gpu 512 px and full width, hours on a GPU; its own results and report
"""

from __future__ import annotations

import os

# Read when torch is first imported: threads that sleep at the end of a loop are kinder to a shared machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import logging
import time
from collections.abc import Callable
from pathlib import Path

import cv2

from trials.losses.pictures import draw_curve, draw_strips
from trials.losses.report import write_report
from trials.losses.trials import (
    BASELINES,
    CPU,
    GPU,
    TINY,
    VARIANTS,
    Scale,
    batch_sweep,
    draw_data,
    main_trials,
    run_baseline,
    run_trial,
    weight_sweep,
)
from wsi_ihc.generators import tune_allocator

_HERE = Path(__file__).resolve().parent


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=["cpu", "gpu", "tiny"], default="cpu", help="tiny proves that it runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=_HERE / "results", help="where data and results are kept")
    parser.add_argument("--docs", type=Path, help="where comparison.md lies; docs/results/ for the scale cpu")
    parser.add_argument("--report", action="store_true", help="only write what the results there say")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    cv2.setNumThreads(1)
    tune_allocator()

    scale = {"cpu": CPU, "gpu": GPU, "tiny": TINY}[arguments.scale]
    results = arguments.results / f"losses-{scale.name}"
    if not arguments.report:
        run_everything(scale, results, arguments.seeds)
    docs = arguments.docs or (_HERE.parents[1] / "docs" / "results" if scale is CPU else results / "report")
    docs.mkdir(parents=True, exist_ok=True)
    draw_curve(scale, results, arguments.seeds, docs / "comparison_sweeps.png")
    draw_strips(scale, results, docs / "comparison.jpg")
    write_report(scale, results, arguments.seeds, docs / "comparison.md", real=arguments.results / "real_pairs.json")


def run_everything(scale: Scale, results: Path, seeds: int) -> None:
    """Data, baselines, trainings; what is there already takes no time."""
    _timed("data", lambda: draw_data(scale, results / "data"))
    for variant in VARIANTS:
        for name in BASELINES:
            if (variant, name) != ("aligned", "truth"):
                _timed(f"{variant}-{name}", lambda n=name, v=variant: run_baseline(n, v, results))  # type: ignore[misc]
    trials = dict.fromkeys([*main_trials(scale, seeds), *weight_sweep(scale), *batch_sweep(scale)])
    for place, trial in enumerate(trials, 1):
        _timed(f"{place}/{len(trials)} {trial.name}", lambda t=trial: run_trial(t, scale, results))  # type: ignore[misc]


def _timed(what: str, work: Callable[[], None]) -> None:
    started = time.perf_counter()
    work()
    print(f"{what}: {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
