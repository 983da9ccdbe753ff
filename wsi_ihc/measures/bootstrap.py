"""Uncertainty of figures: bootstrap intervals over images, and paired tests between two runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RESAMPLES = 1000
CONFIDENCE = 0.95

Statistic = Callable[[NDArray[np.intp]], float]
"""A figure of the images with these indices, which may repeat."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval; NaN where it is undefined (no images, or one image and no interval)."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Run A minus run B on the same images.

    ``wins`` counts images where A is better, ``losses`` where B is; ``p`` is the two-sided sign test's without ties.
    """

    difference: Estimate
    wins: int
    losses: int
    ties: int
    p: float


def mean_estimate(values: NDArray[np.float64], seed: int) -> Estimate:
    """Mean over images with a percentile bootstrap interval; images where the measure is undefined are left out."""
    defined = values[~np.isnan(values)]
    if defined.size < 2 or not np.isfinite(defined).all():
        mean = float(defined.mean()) if defined.size else math.nan
        return Estimate(mean, math.nan, math.nan, defined.size)
    result = stats.bootstrap(
        (defined,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        batch=100,
        rng=seed,
    )
    low, high = result.confidence_interval
    return Estimate(float(defined.mean()), float(low), float(high), defined.size)


def set_estimate(statistic: Statistic, n: int, seed: int) -> Estimate:
    """A figure of a whole set, such as a correlation, with a bootstrap interval: each draw computes it again.

    Draws in which it is undefined (one score only, no spread) are left out; with fewer than half left there is no
    interval.
    """
    value = statistic(np.arange(n)) if n else math.nan
    if n < 3 or math.isnan(value):
        return Estimate(value, math.nan, math.nan, n)
    generator = np.random.default_rng(seed)
    draws = np.array([statistic(generator.integers(0, n, n)) for _ in range(RESAMPLES)])
    draws = draws[~np.isnan(draws)]
    if draws.size < RESAMPLES // 2:
        return Estimate(value, math.nan, math.nan, n)
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, float(low), float(high), n)


def half_sample_estimate(statistic: Statistic, n: int, seed: int, halves: int = 24) -> Estimate:
    """A distance between sets, with an interval. Drawing images twice would bias it, so halves are drawn instead.

    Delete-half jackknife (Shao and Wu 1989): the spread of the figure over random halves, drawn without repetition, is
    its standard error on the whole.
    """
    value = statistic(np.arange(n))
    if n < 8:
        return Estimate(value, math.nan, math.nan, n)
    generator = np.random.default_rng(seed)
    spread = np.std([statistic(generator.permutation(n)[: n // 2]) for _ in range(halves)], ddof=1)
    margin = float(stats.norm.ppf((1 + CONFIDENCE) / 2) * spread)
    return Estimate(value, value - margin, value + margin, n)


def paired_difference(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    better: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    seed: int,
) -> PairedDifference:
    """Compare two runs image by image; ``better`` maps values to a merit, higher is better."""
    defined = np.isfinite(a) & np.isfinite(b)
    a, b = a[defined], b[defined]
    merit = better(a) - better(b)
    wins, losses = int((merit > 0).sum()), int((merit < 0).sum())
    p = float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else math.nan
    return PairedDifference(mean_estimate(a - b, seed), wins, losses, merit.size - wins - losses, p)
