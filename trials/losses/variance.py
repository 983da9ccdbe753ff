"""The experiment that decides on the variance penalty: does it help, in which form, at which batch, at what cost?

python -m trials.losses.variance                hours on two cores; stop and start it as you like
python -m trials.losses.variance --report       only writes docs/results/variance.md from the results that are there
python -m trials.losses.variance --scale tiny   a minute: proves that it runs, and nothing else

{none, per pixel as published, pooled over 32 px} x {2, 4, 16 images a step} x {score readable in the H&E, or not},
three seeds, equal steps. The weight of the penalty is set before the runs so that it has 20 % of the gradient on the
image. The fields have no looks drawn at random, since what cannot be known would cap every spread. docs/training.md
states the outcomes, fixed before the first run.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import stats

from trials.losses.trials import CPU, MPP, TINY, Scale, train, write_png
from wsi_ihc.evaluation.evaluate import Options, evaluate, load_test_set, prepare_output
from wsi_ihc.evaluation.generated import from_generator
from wsi_ihc.evaluation.report import Report, read_report
from wsi_ihc.generators import tune_allocator
from wsi_ihc.measures.her2 import HER2_SCORES
from wsi_ihc.phantom import Look, draw_field
from wsi_ihc.training import TrainingSettings

Form = Literal["none", "pixel", "pooled"]
Score = Literal["readable", "unreadable"]

FORMS: tuple[Form, ...] = ("none", "pixel", "pooled")
SCORES: tuple[Score, ...] = ("readable", "unreadable")
IMAGES = (2, 4, 16)
SHARE = 0.2
"""Of the gradient on the generated image: what the penalty's weight is set for."""
FIRST_WEIGHT, PILOT_STEPS = 10.0, 40

_HERE = Path(__file__).resolve().parent
_SHOWN = (
    ("3+ DAB bias, OD", "iod_difference", "3+"), ("spread ratio", "spread_ratio", "all"),
    ("order violations", "order_violations", "all"), ("PSNR, dB", "psnr", "all"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cell:
    """One training but for its weight."""

    score: Score
    form: Form
    images: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.score}-{self.form}-n{self.images}-s{self.seed}"


def cells(seeds: int) -> list[Cell]:
    """Seed by seed, so that what is interrupted is complete for fewer seeds."""
    return [Cell(s, f, n, seed) for seed in range(seeds) for s in SCORES for n in IMAGES for f in FORMS]


def draw_data(scale: Scale, folder: Path) -> None:
    """Pairs below ``folder``: where the score is unreadable, the H&E of every field is that of a 2+."""
    for score in SCORES:
        part = folder / f"{score}.part"
        if (folder / score).is_dir():
            continue
        for index in range(scale.train_fields + scale.test_fields):
            split = "train" if index < scale.train_fields else "test"
            own = HER2_SCORES[index % len(HER2_SCORES)]
            field = draw_field(index, own, scale.field_px, MPP, Look())
            he = field.he if score == "readable" else draw_field(index, "2+", scale.field_px, MPP, Look()).he
            for stain, image in (("HE", he), ("IHC", field.ihc)):
                target = part / stain / split / f"{index:05d}_{split}_{own}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                write_png(target, image)
        part.replace(folder / score)


def settings_of(cell: Cell, scale: Scale, data: Path, weight: float, steps: int | None = None) -> TrainingSettings:
    """What a cell is trained with; more than four images a step are accumulated."""
    at_once, steps = min(cell.images, 4), steps or scale.steps
    losses = {"l1_weight": 25, "octave_weights": [25, 25], "variance_weight": weight,
              "variance_pool_px": min(32, scale.crop_px) if cell.form == "pooled" else 1}  # fmt: skip
    network = {"kind": "resnet", "blocks": scale.blocks, "base_channels": scale.channels, "dropout": scale.dropout}
    return TrainingSettings.model_validate(
        {
            "name": cell.name,
            "mpp": MPP,
            "network": network,
            "discriminator": {"base_channels": scale.discriminator_channels},
            "data": {"root": data / cell.score, "crop_px": scale.crop_px, "validation_pairs": 0, "check": "off",
                     "batch_size": at_once, "accumulate": cell.images // at_once,
                     "epoch_pairs": max(scale.train_fields, cell.images)},
            "losses": losses,
            "optimiser": {"learning_rate": scale.learning_rate, "ema_decay": scale.ema_decay,
                          "discriminator_learning_rate": scale.discriminator_learning_rate},
            "schedule": {"unit": "steps", "constant": steps - steps // 2, "decay": steps // 2},
            "compute": {"precision": scale.precision},
            "run": {"seed": cell.seed, "log_every": 1, "share_every": 10, "checkpoint_every": 200},
        }
    )  # fmt: skip


def weight_of(cell: Cell, scale: Scale, results: Path) -> float:
    """The weight that gives the penalty its share, from a short pilot of the first seed; read again afterwards."""
    if cell.form == "none":
        return 0.0
    pilot = Cell(cell.score, cell.form, cell.images, 0)
    folder = results / "pilots" / pilot.name
    train(settings_of(pilot, scale, results / "data", FIRST_WEIGHT, min(PILOT_STEPS, scale.steps)), folder)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    share = float(np.mean([line["share/variance"] for line in lines if "share/variance" in line]))
    return float(f"{FIRST_WEIGHT * SHARE / (1 - SHARE) * (1 - share) / share:.3g}")


def run_cell(cell: Cell, scale: Scale, results: Path) -> None:
    """Train and judge on unseen fields, unless that was done; what was interrupted goes on."""
    folder = results / "trials" / cell.name
    if (folder / "report" / "report.json").is_file():
        return
    data = results / "data"
    bundle = train(settings_of(cell, scale, data, weight_of(cell, scale, results)), folder)
    test_set = load_test_set(data / cell.score)
    generated = from_generator(str(bundle), test_set.pairs, folder / "generated")
    prepare_output(folder / "report", overwrite=True)
    evaluate(generated, test_set, folder / "report", Options(workers=1, html=False))


def value(report: Report, measure: str, group: str) -> float:
    """A figure of a report; NaN where it has none."""
    figure = report.figure(measure, group)
    return figure.estimate.value if figure else math.nan


def gain(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """How much nearer zero the first values are, seed by seed: mean, and Student's 95 % interval (NaN for one seed)."""
    differences = np.abs(np.array(second)) - np.abs(np.array(first))
    mean = float(differences.mean())
    if len(differences) < 2:
        return mean, math.nan, math.nan
    margin = stats.t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / math.sqrt(len(differences))
    return mean, mean - float(margin), mean + float(margin)


def report_lines(results: Path, seeds: int) -> list[str]:
    """The table: means over seeds, and the gain in 3+ DAB bias over no penalty, which decides."""
    titles = [title for title, _, _ in _SHOWN]
    lines = [f"| score | images a step | penalty | seeds | {' | '.join(titles)} | gain in 3+ bias, 95 % over seeds |",
             "|---" * (5 + len(titles)) + "|"]  # fmt: skip
    for score in SCORES:
        for images in IMAGES:
            found = {form: _reports(results, score, form, images, seeds) for form in FORMS}
            for form, reports in found.items():
                if reports:
                    shown = [f"{np.mean([value(r, key, group) for r in reports]):.3f}" for _, key, group in _SHOWN]
                    row = [score, str(images), form, str(len(reports)), *shown, _gain_of(reports, found["none"], form)]
                    lines.append(f"| {' | '.join(row)} |")
    return lines


def _gain_of(reports: Sequence[Report], without: Sequence[Report], form: Form) -> str:
    count = min(len(reports), len(without))
    if form == "none" or not count:
        return ""
    biases = [[value(report, "iod_difference", "3+") for report in part[:count]] for part in (reports, without)]
    mean, low, high = gain(*biases)
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"


def _reports(results: Path, score: Score, form: Form, images: int, seeds: int) -> list[Report]:
    folders = [results / "trials" / Cell(score, form, images, seed).name / "report" for seed in range(seeds)]
    return [read_report(folder) for folder in folders if (folder / "report.json").is_file()]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=["cpu", "tiny"], default="cpu", help="tiny proves that it runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=_HERE / "results", help="where data and results are kept")
    parser.add_argument("--report", action="store_true", help="only write what the results there say")
    arguments = parser.parse_args()
    scale = {"cpu": CPU, "tiny": TINY}[arguments.scale]
    results = arguments.results / f"variance-{scale.name}"
    tune_allocator()
    if not arguments.report:
        draw_data(scale, results / "data")
        for cell in cells(arguments.seeds):
            run_cell(cell, scale, results)
            print(cell.name, flush=True)
    text = "\n".join(["# The variance penalty, decided", "", *report_lines(results, arguments.seeds), ""])
    target = _HERE.parents[1] / "docs" / "results" / "variance.md" if scale is CPU else results / "variance.md"
    target.write_text(text, encoding="utf-8")
    print(target)


if __name__ == "__main__":
    main()
