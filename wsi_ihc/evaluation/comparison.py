"""Comparison of runs on the same images: which is better on which image, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.errors import DataSetError
from wsi_ihc.evaluation.recipes import MEASURES, Measure
from wsi_ihc.evaluation.summary import set_statistics
from wsi_ihc.measures.bootstrap import Estimate, PairedDifference, Statistic, paired_difference, set_estimate

TIE = "tie"


class Judged(Protocol):
    """The part of a report that a comparison needs."""

    @property
    def name(self) -> str: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def scores(self) -> tuple[str | None, ...]: ...
    @property
    def columns(self) -> Mapping[str, NDArray[np.float64]]: ...


@dataclass(frozen=True, slots=True)
class Difference:
    """The first run minus another one, for a measure that each image has."""

    measure: str
    other: str
    paired: PairedDifference


@dataclass(frozen=True, slots=True)
class SetDifference:
    """Difference in a measure of the whole set; each draw of the interval takes the same images for both runs."""

    measure: str
    other: str
    difference: Estimate


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image and measure: the value of every run, and the name of the best one."""

    name: str
    score: str | None
    measure: str
    values: tuple[float, ...]
    best: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs in the order given; ``best_on`` counts, by measure and run, the images on which that run is the best."""

    runs: tuple[str, ...]
    images_in_common: int
    differences: tuple[Difference, ...]
    set_differences: tuple[SetDifference, ...]
    best_on: Mapping[str, Mapping[str, int]]
    images: tuple[ImageRow, ...]


def compare(reports: Sequence[Judged], seed: int) -> Comparison:
    """Compare the first report with each of the others, on the images that all have.

    Raises:
        DataSetError: no image in common, or real images of the same name that differ.
    """
    names = _names_in_common(reports)
    indices = [np.array([report.names.index(name) for name in names]) for report in reports]
    columns = [{k: v[i] for k, v in report.columns.items()} for report, i in zip(reports, indices, strict=True)]
    runs = _distinct([report.name for report in reports])
    for run, own in zip(runs[1:], columns[1:], strict=True):
        if not np.array_equal(own["real_crc32"], columns[0]["real_crc32"]):
            raise DataSetError(
                f"{run}: judged against other real images of the same names; evaluate it on the same data"
            )
    scores = tuple(reports[0].scores[i] for i in indices[0])
    measures = [m for m in MEASURES if m.per_image and all(m.key in own for own in columns)]
    rows = tuple(row for m in measures for row in _image_rows(m, runs, names, scores, columns))
    best_on = {m.key: {run: sum(r.best == run and r.measure == m.key for r in rows) for run in runs} for m in measures}
    differences = tuple(
        Difference(m.key, run, paired_difference(columns[0][m.key], other[m.key], m.merit, seed))
        for run, other in zip(runs[1:], columns[1:], strict=True)
        for m in measures
    )
    return Comparison(runs, len(names), differences, _set_differences(runs, scores, columns, seed), best_on, rows)


def _names_in_common(reports: Sequence[Judged]) -> tuple[str, ...]:
    shared = set.intersection(*(set(report.names) for report in reports))
    if not shared:
        raise DataSetError(f"{reports[1].name}: no image in common with {reports[0].name}; nothing to compare")
    return tuple(name for name in reports[0].names if name in shared)


def _distinct(names: list[str]) -> tuple[str, ...]:
    return tuple(name if names.count(name) == 1 else f"{name} ({index + 1})" for index, name in enumerate(names))


def _image_rows(
    measure: Measure,
    runs: tuple[str, ...],
    names: tuple[str, ...],
    scores: tuple[str | None, ...],
    columns: Sequence[Mapping[str, NDArray[np.float64]]],
) -> list[ImageRow]:
    values = np.stack([own[measure.key] for own in columns], axis=1)
    merit = np.nan_to_num(measure.merit(values), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    rows = []
    for name, score, own, merits in zip(names, scores, values, merit, strict=True):
        leaders = np.flatnonzero(merits == merits.max())
        rows.append(
            ImageRow(name, score, measure.key, tuple(own.tolist()), runs[leaders[0]] if len(leaders) == 1 else TIE)
        )
    return rows


def _set_differences(
    runs: tuple[str, ...],
    scores: tuple[str | None, ...],
    columns: Sequence[Mapping[str, NDArray[np.float64]]],
    seed: int,
) -> tuple[SetDifference, ...]:
    if any("dab_top_decile" not in own for own in columns):
        return ()
    first, *others = (set_statistics(own, scores) for own in columns)
    found = [
        SetDifference(key, run, set_estimate(_minus(first[key], other[key]), len(scores), seed))
        for run, other in zip(runs[1:], others, strict=True)
        for key in first
    ]
    return tuple(row for row in found if not np.isnan(row.difference.value))


def _minus(a: Statistic, b: Statistic) -> Statistic:
    return lambda indices: a(indices) - b(indices)
