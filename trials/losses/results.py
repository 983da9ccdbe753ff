"""What the trials of ``compare_losses.py`` found: estimates over seeds, and differences between systems."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from trials.losses.trials import Scale, System, Trial, Variant, losses_of, report_folder
from wsi_ihc.evaluation.recipes import Measure
from wsi_ihc.evaluation.report import Report, read_report
from wsi_ihc.evaluation.summary import set_statistics
from wsi_ihc.measures.bootstrap import CONFIDENCE, Estimate, mean_estimate, set_estimate


@dataclass(frozen=True, slots=True)
class Setting:
    """What was trained on, and what it is judged against."""

    variant: Variant
    reference: Variant
    title: str


SETTINGS = (
    Setting("aligned", "aligned", "Trained and judged on aligned pairs"),
    Setting("misaligned", "misaligned", "Trained and judged on misaligned pairs, as on BCI"),
    Setting("misaligned", "aligned", "Trained on misaligned pairs, judged against the true stain of the section"),
)


@dataclass(frozen=True, slots=True)
class SeedEstimate:
    """A figure over the seeds: their mean and standard deviation, and the interval over test images.

    ``low`` and ``high`` are means of the seeds' own bounds: no narrower than the interval of the mean.
    """

    value: float
    deviation: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better the first system is than the second; positive is better, whichever way the measure runs.

    ``images`` is the bootstrap interval over test images of the mean over seeds, where the measure has one; ``seeds``
    Student's interval over the paired seeds.
    """

    value: float
    images: tuple[float, float] | None
    seeds: tuple[float, float] | None

    @property
    def verdict(self) -> int:
        """1 better, -1 worse, 0 undecided: every interval must leave out zero, and there must be one over seeds."""
        if self.seeds is None:
            return 0
        bounds = [self.seeds, *([self.images] if self.images else [])]
        return 1 if all(low > 0 for low, _ in bounds) else -1 if all(high < 0 for _, high in bounds) else 0


def trial_reports(trials: Sequence[Trial], results: Path, reference: Variant) -> list[Report]:
    """Reports of those trials that are finished."""
    folders = [report_folder(results / "trials" / trial.name, reference) for trial in trials]
    return [read_report(folder) for folder in folders if (folder / "report.json").is_file()]


def system_trials(system: System, variant: Variant, scale: Scale, seeds: int) -> list[Trial]:
    """A system's trainings on one variant, one for each seed."""
    return [Trial(variant, system, seed, scale.batch, losses_of(system).variance_weight) for seed in range(seeds)]


def over_seeds(reports: Sequence[Report], measure: Measure, group: str = "all") -> SeedEstimate | None:
    """The figure of a measure; None where no report has it."""
    figures = [figure for report in reports if (figure := report.figure(measure.key, group))]
    if not figures:
        return None
    estimates = [figure.estimate for figure in figures]
    values = np.array([estimate.value for estimate in estimates])
    deviation = float(values.std(ddof=1)) if values.size > 1 else math.nan
    low, high = (float(np.mean([getattr(estimate, end) for estimate in estimates])) for end in ("low", "high"))
    return SeedEstimate(float(values.mean()), deviation, low, high)


def difference(measure: Measure, first: Sequence[Report], second: Sequence[Report]) -> Difference | None:
    """The first system against the second, on the same images, seed by seed."""
    pairs = list(zip(first, second, strict=False))
    by_seed = np.array([_gain_of_set(measure, a, b) for a, b in pairs])
    images: Estimate | None = None
    if measure.per_image:
        gains = np.array(
            [measure.merit(a.columns[measure.key]) - measure.merit(b.columns[measure.key]) for a, b in pairs]
        )
        by_seed = np.nanmean(gains, axis=1)
        images = mean_estimate(gains.mean(axis=0), seed=0)
    elif measure.key in set_statistics(first[0].columns, first[0].scores):
        images = set_estimate(lambda drawn: float(np.mean([_gain(measure, a, b, drawn) for a, b in pairs])),
                              len(first[0].scores), seed=0)  # fmt: skip
    value = float(by_seed.mean())
    if math.isnan(value):
        return None
    seeds: tuple[float, float] | None = None
    if by_seed.size > 1:
        margin = float(
            stats.t.ppf((1 + CONFIDENCE) / 2, by_seed.size - 1) * by_seed.std(ddof=1) / math.sqrt(by_seed.size)
        )
        seeds = (value - margin, value + margin)
    return Difference(value, (images.low, images.high) if images else None, seeds)


def _gain_of_set(measure: Measure, a: Report, b: Report) -> float:
    figures = [report.figure(measure.key) for report in (a, b)]
    return _minus(measure, [figure.estimate.value if figure else math.nan for figure in figures])


def _gain(measure: Measure, a: Report, b: Report, drawn: np.ndarray) -> float:
    return _minus(measure, [set_statistics(report.columns, report.scores)[measure.key](drawn) for report in (a, b)])


def _minus(measure: Measure, values: Sequence[float]) -> float:
    """Merit of the first value over the second; NaN where neither has one, as the spread of a single picture."""
    with np.errstate(divide="ignore", invalid="ignore"):
        merits = measure.merit(np.array(values))
        return float(merits[0] - merits[1])


def training_means(trials: Sequence[Trial], results: Path) -> dict[str, float]:
    """Means over the second half of the trainings' logged lines, by name."""
    found: dict[str, list[float]] = {}
    for trial in trials:
        log = results / "trials" / trial.name / "metrics.jsonl"
        if not log.is_file():
            continue
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        for line in lines[len(lines) // 2 :]:
            for name, value in line.items():
                found.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}
