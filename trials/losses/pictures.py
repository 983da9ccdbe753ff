"""Pictures of docs/results/comparison.md: curves of both sweeps, and the same fields stained by every system."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from trials.losses.results import over_seeds, system_trials, training_means, trial_reports
from trials.losses.trials import SYSTEMS, VARIANTS, Scale, Trial, Variant, batch_sweep, losses_of, weight_sweep
from wsi_ihc.evaluation.recipes import measure_named
from wsi_ihc.measures.her2 import HER2_SCORES
from wsi_ihc.pairs.folders import find_pairs, read_pair
from wsi_ihc.pairs.images import read_image

CURVE_MEASURES = ("psnr", "texture_kernel_x1000", "dab_r", "spread_ratio")
STRIP_PX = 160
_TRUE, _MOVED, _GREY = "#3b4a8c", "#b0743a", "#b8bcc6"


def draw_curve(scale: Scale, results: Path, seeds: int, target: Path) -> None:
    """Small multiples: the weight of the penalty above, the batch below. Intervals are in the table."""
    with rc_context({"font.size": 8}):
        figure = Figure(figsize=(12.5, 5), layout="constrained")
        axes = figure.subplots(2, len(CURVE_MEASURES) + 1)
        for axis in axes.flat:
            axis.spines[["top", "right"]].set_visible(False)
        _draw_weights(axes[0], scale, results, seeds)
        _draw_batches(axes[1], scale, results)
        figure.savefig(target, dpi=80, facecolor="white", pil_kwargs={"optimize": True})


def _draw_weights(axes: Sequence[Axes], scale: Scale, results: Path, seeds: int) -> None:
    trials = weight_sweep(scale)
    ticks = [f"{trial.variance_weight:g}" for trial in trials]
    others = {0: "pyramid", ticks.index(f"{losses_of('variance').variance_weight:g}"): "variance"}
    for axis, key in zip(axes, CURVE_MEASURES, strict=False):
        for reference, colour, label in (("aligned", _TRUE, "against the true stain"),
                                         ("misaligned", _MOVED, "against the moved one")):  # fmt: skip
            _line(axis, trials, results, key, reference, colour, label)
            for place, system in others.items():
                for trial in system_trials(system, "misaligned", scale, seeds)[1:]:
                    for report in trial_reports([trial], results, reference):
                        figure = report.figure(key)
                        axis.plot(place, figure.estimate.value if figure else np.nan, "x", color=colour, markersize=4)
        axis.set_title(measure_named(key).title, loc="left", fontsize=9)
        axis.set_xticks(range(len(ticks)), ticks)
        axis.set_xlabel("weight of the penalty (x: other seeds)")
    shares = [_share(trial, results) for trial in trials]
    axes[-1].plot(shares, "o-", color=_TRUE, markersize=3)
    axes[-1].set_title("penalty's share of the pull", loc="left", fontsize=9)
    axes[-1].set_xticks(range(len(ticks)), ticks)
    axes[1].legend(frameon=False, fontsize=7)


def _draw_batches(axes: Sequence[Axes], scale: Scale, results: Path) -> None:
    weights = sorted({trial.variance_weight for trial in batch_sweep(scale)})
    for weight, colour in zip(weights, (_GREY, _TRUE), strict=True):
        trials = [trial for trial in batch_sweep(scale) if trial.variance_weight == weight]
        label = f"weight {weight:g}, true stain"
        for axis, key in zip(axes, CURVE_MEASURES, strict=False):
            _line(axis, trials, results, key, "aligned", colour, label)
            axis.set_title(measure_named(key).title, loc="left", fontsize=9)
        shares = [_share(trial, results) for trial in trials]
        axes[-1].plot(shares, "o-", color=colour, markersize=3)
        for axis in axes:
            axis.set_xticks(range(len(trials)), [str(trial.batch) for trial in trials])
            axis.set_xlabel("batch, the same number of crops")
    axes[-1].set_title("penalty's share of the pull", loc="left", fontsize=9)
    axes[1].legend(frameon=False, fontsize=7)


def _share(trial: Trial, results: Path) -> float:
    """The penalty's share of the gradient; none without it, NaN where the training has not been done."""
    means = training_means([trial], results)
    return means.get("share/variance", 0.0) if means else float("nan")


def _line(
    axis: Axes, trials: Sequence[Trial], results: Path, key: str, reference: Variant, colour: str, label: str
) -> None:
    points = [over_seeds(trial_reports([trial], results, reference), measure_named(key)) for trial in trials]
    places = [place for place, point in enumerate(points) if point]
    found = [point for point in points if point]
    if not found:
        return
    axis.plot(places, [point.value for point in found], "o-", color=colour, markersize=3, linewidth=1.2, label=label)


def draw_strips(scale: Scale, results: Path, target: Path, side: int = STRIP_PX) -> None:
    """The first test field of each score at 1:1: H&E, real, then every system (first seed), aligned and misaligned."""
    pairs = find_pairs(results / "data" / "aligned", "test")
    chosen = [next(pair for pair in pairs if pair.score == score) for score in HER2_SCORES]
    side = min(side, scale.field_px)
    trials = [system_trials(system, variant, scale, 1)[0] for variant in VARIANTS for system in SYSTEMS]
    rows = []
    for pair in chosen:
        files = [results / "trials" / trial.name / "generated" / f"{pair.name}.png" for trial in trials]
        blank = np.full((scale.field_px, scale.field_px, 3), 255, np.uint8)
        images = [*read_pair(pair), *(read_image(file) if file.is_file() else blank for file in files)]
        rows.append(np.concatenate([_centre(image, side) for image in images], axis=1))
    titles = ["H&E", "real", *SYSTEMS, *(f"{system}, mis." for system in SYSTEMS)]
    picture = np.concatenate([_heading(titles, side), *rows])
    cv2.imwrite(str(target), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])


def _centre(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def _heading(titles: Sequence[str], side: int) -> NDArray[np.uint8]:
    heading = np.full((22, side * len(titles), 3), 255, np.uint8)
    for place, title in enumerate(titles):
        cv2.putText(
            heading, title, (place * side + 4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 44, 56), 1, cv2.LINE_AA
        )
    return heading
