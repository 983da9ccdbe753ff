"""From images to figures: every measure overall and per HER2 score, each with its interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.evaluation.images import ImageMeasures
from wsi_ihc.evaluation.recipes import MEASURES, Recipe
from wsi_ihc.measures.bootstrap import Estimate, Statistic, mean_estimate, set_estimate
from wsi_ihc.measures.her2 import HER2_SCORES
from wsi_ihc.measures.stain import dice, histogram_divergence

ALL = "all"

Columns = Mapping[str, NDArray[np.float64]]
"""A value per image by column name, as in the CSV."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measure on one group of images; ``reference`` is what the real images reach themselves."""

    measure: str
    group: str
    estimate: Estimate
    reference: float | None = None


def columns_of(images: Sequence[ImageMeasures]) -> dict[str, NDArray[np.float64]]:
    """The per-image values as arrays."""
    return {key: np.array([image.values[key] for image in images]) for key in images[0].values}


def groups_of(scores: Sequence[str | None]) -> dict[str, NDArray[np.intp]]:
    """Indices of all images, and of those of each score that occurs."""
    groups = {ALL: np.arange(len(scores))}
    for score in HER2_SCORES:
        members = np.array([index for index, own in enumerate(scores) if own == score], np.intp)
        if members.size:
            groups[score] = members
    return groups


def score_ranks(scores: Sequence[str | None]) -> NDArray[np.int64]:
    """0 to 3 for the HER2 scores, -1 where none is known."""
    return np.array([HER2_SCORES.index(score) if score in HER2_SCORES else -1 for score in scores], np.int64)


def summarise(images: Sequence[ImageMeasures], recipes: tuple[Recipe, ...], seed: int) -> list[Figure]:
    """Every measure that needs no feature network."""
    columns, scores = columns_of(images), [image.score for image in images]
    groups = groups_of(scores)
    figures = []
    for measure in MEASURES:
        if measure.per_image and measure.recipe in recipes and measure.key in columns:
            for group, members in groups.items():
                reference = float(np.nanmean(columns[measure.reference][members])) if measure.reference else None
                figures.append(
                    Figure(measure.key, group, mean_estimate(columns[measure.key][members], seed), reference)
                )
    if "bench" in recipes:
        real, made = columns["bench_dab_real"], columns["bench_dab"]
        for group, members in groups.items():
            statistic = _restricted(lambda i: pearson(real[i], made[i]), members)
            figures.append(Figure("bench_dab_r", group, set_estimate(statistic, members.size, seed)))
    if "modern" in recipes:
        figures += _set_figures(images, columns, scores, groups, seed)
    return figures


def _set_figures(
    images: Sequence[ImageMeasures],
    columns: Columns,
    scores: Sequence[str | None],
    groups: Mapping[str, NDArray[np.intp]],
    seed: int,
) -> list[Figure]:
    histograms = np.stack([image.histograms for image in images])
    spread = spread_statistic(*(np.stack([image.reduced[side] for image in images]) for side in (0, 1)))
    known = set_statistics(columns, scores)
    statistics: dict[str, Statistic] = {
        "dab_r": known["dab_r"],
        "brown_dice_pooled": known["brown_dice_pooled"],
        "histogram_divergence_pooled": lambda i: histogram_divergence(*histograms[i].sum(axis=0)),
        "spread_ratio": spread,
    }
    figures = []
    for key, statistic in statistics.items():
        for group, members in groups.items():
            figures.append(Figure(key, group, set_estimate(_restricted(statistic, members), members.size, seed)))
    if len(groups) > 2:
        n = len(images)
        figures.append(Figure("dab_r_within", ALL, set_estimate(known["dab_r_within"], n, seed)))
        reference = order_violations(columns["dab_top_decile_real"], score_ranks(scores))
        figures.append(Figure("order_violations", ALL, set_estimate(known["order_violations"], n, seed), reference))
    return figures


def set_statistics(columns: Columns, scores: Sequence[str | None]) -> dict[str, Statistic]:
    """The figures of a set that follow from the CSV's columns alone, as functions of image indices."""
    real, made, ranks = columns["dab_top_decile_real"], columns["dab_top_decile"], score_ranks(scores)
    brown = np.stack([columns["brown_real_px"], columns["brown_px"], columns["brown_both_px"]], axis=1)
    return {
        "dab_r": lambda i: pearson(real[i], made[i]),
        "dab_r_within": lambda i: pearson_within(real[i], made[i], ranks[i]),
        "order_violations": lambda i: order_violations(made[i], ranks[i]),
        "brown_dice_pooled": lambda i: dice(*brown[i].sum(axis=0)),
    }


def _restricted(statistic: Statistic, members: NDArray[np.intp]) -> Statistic:
    return lambda indices: statistic(members[indices])


def pearson(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Correlation; NaN for fewer than three images or where one side does not vary."""
    if x.size < 3:
        return math.nan
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale > 1e-12 else math.nan


def pearson_within(x: NDArray[np.float64], y: NDArray[np.float64], ranks: NDArray[np.int64]) -> float:
    """Correlation after removing each score's mean from both sides; images without a score are left out."""
    known = ranks >= 0
    x, y, ranks = x[known].copy(), y[known].copy(), ranks[known]
    for rank in np.unique(ranks):
        members = ranks == rank
        x[members] -= x[members].mean()
        y[members] -= y[members].mean()
    return pearson(x, y)


def order_violations(strength: NDArray[np.float64], ranks: NDArray[np.int64]) -> float:
    """Share of pairs of images of different score in which the lower score is stained more strongly.

    Ties count half, so chance is 0.5; one minus this is the concordance (Harrell's C). NaN with a single score.
    """
    by_score = [np.sort(strength[ranks == rank]) for rank in np.unique(ranks[ranks >= 0])]
    violations, pairs = 0.0, 0
    for index, low in enumerate(by_score):
        for high in by_score[index + 1 :]:
            stronger = low.size - np.searchsorted(low, high, side="right")
            equal = np.searchsorted(low, high, side="right") - np.searchsorted(low, high, side="left")
            violations += float(stronger.sum() + equal.sum() / 2)
            pairs += low.size * high.size
    return violations / pairs if pairs else math.nan


def spread_statistic(real: NDArray[np.float32], generated: NDArray[np.float32]) -> Statistic:
    """Variance over the generated images divided by that over the real ones, both summed over reduced pixels.

    Arrays are (n, h, w, 3). Far below 1 means that the outputs are all alike: mode collapse, the failure that the
    variance penalty is meant to cure. The summed variance of any draw follows from the matrix of inner products.
    """
    over_real, over_generated = _summed_variance(real), _summed_variance(generated)

    def ratio(indices: NDArray[np.intp]) -> float:
        target = over_real(indices)
        return over_generated(indices) / target if target > 1e-12 else math.nan

    return ratio


def _summed_variance(images: NDArray[np.float32]) -> Callable[[NDArray[np.intp]], float]:
    flat = images.reshape(len(images), -1).astype(np.float64)
    flat -= flat.mean(axis=0)
    products = flat @ flat.T

    def variance(indices: NDArray[np.intp]) -> float:
        n = indices.size
        if n < 2:
            return math.nan
        weights = np.bincount(indices, minlength=len(products)).astype(np.float64)
        return float(weights @ products.diagonal() - weights @ products @ weights / n) / (n - 1)

    return variance
