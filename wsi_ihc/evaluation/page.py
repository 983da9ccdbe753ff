"""The report as one HTML page that needs no other file: tables, plots, and the best, median and worst images."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc import RESEARCH_USE_ONLY
from wsi_ihc.errors import StorageError
from wsi_ihc.evaluation import plots
from wsi_ihc.evaluation.comparison import Comparison
from wsi_ihc.evaluation.images import ImageMeasures, Task
from wsi_ihc.evaluation.recipes import MEASURES, Measure, measure_named
from wsi_ihc.evaluation.report import PAGE_NAME, Report, group_names
from wsi_ihc.evaluation.summary import ALL
from wsi_ihc.measures.bootstrap import Estimate
from wsi_ihc.pairs.folders import read_pair
from wsi_ihc.pairs.images import read_image

THUMBNAIL_PX = 256
PER_SHELF = 3

_ARROWS = {"higher": "↑", "lower": "↓", "zero": "→0", "one": "→1"}
_CARDS = (
    "psnr",
    "ssim",
    "ms_ssim",
    "dab_r",
    "haematoxylin_ssim",
    "spread_ratio",
    "fid",
    "kid_x1000",
    "features_frechet",
    "texture_frechet",
    "bench_psnr",
    "bench_ssim",
    "bench_lpips",
    "bench_dab_r",
    "bench_dab_mae",
)
_RANKING = ("ssim", "ms_ssim", "bench_ssim")
"""The pictures are ordered by the first of these that was computed."""
_PLOTTED = (
    "psnr",
    "ssim",
    "ms_ssim",
    "dab_error",
    "iod_difference",
    "haematoxylin_ssim",
    "bench_psnr",
    "bench_ssim",
    "bench_dab_mae",
)


@dataclass(frozen=True, slots=True)
class _Cell:
    value: str
    interval: str = ""
    reference: str = ""


def write_page(
    report: Report,
    images: Sequence[ImageMeasures],
    tasks: Sequence[Task],
    folder: Path,
    comparison: Comparison | None = None,
) -> None:
    """Write ``report.html``.

    Raises:
        StorageError: it cannot be written. SettingsError: matplotlib is not installed.
    """
    template = files("wsi_ihc.evaluation").joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    ranking = measure_named(next(key for key in _RANKING if key in report.columns))
    html = environment.from_string(template).render(
        report=report,
        research_use_only=RESEARCH_USE_ONLY,
        groups=group_names(report.figures),
        cards=_cards(report),
        tables=_tables(report),
        comparison=comparison,
        versus=_versus(comparison) if comparison else [],
        best_on=_best_on(comparison) if comparison else [],
        plots=_plots(report, images),
        ranked_by=ranking.title,
        shelves=_shelves(report, ranking, tasks),
        provenance=_provenance(report),
    )
    try:
        (folder / PAGE_NAME).write_text(html, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{folder / PAGE_NAME}: cannot be written ({error.strerror or error})") from None


def _number(value: float, digits: int, *, signed: bool = False) -> str:
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞"
    text = f"{round(value, digits) + 0.0:{'+' if signed else ''}.{digits}f}"  # adding 0.0 turns -0.000 into 0.000
    return text.replace("-", "−")


def _interval(estimate: Estimate, digits: int) -> str:
    if math.isnan(estimate.low):
        return ""
    return f"{_number(estimate.low, digits)} to {_number(estimate.high, digits)}"


def _cards(report: Report) -> list[dict[str, str]]:
    cards = []
    for key in _CARDS:
        if figure := report.figure(key):
            measure = measure_named(key)
            cards.append(
                {
                    "title": measure.title,
                    "arrow": _ARROWS[measure.better],
                    "value": _number(figure.estimate.value, measure.digits),
                    "interval": _interval(figure.estimate, measure.digits),
                }
            )
    return cards


def _tables(report: Report) -> list[dict[str, Any]]:
    return [{"recipe": recipe, "rows": _rows(report, recipe)} for recipe in report.recipes]


def _rows(report: Report, recipe: str) -> list[dict[str, Any]]:
    rows = []
    for measure in MEASURES:
        if measure.recipe == recipe and report.figure(measure.key):
            cells = [_cell(report, measure, group) for group in group_names(report.figures)]
            rows.append(_heading(measure) | {"meaning": measure.meaning, "cells": cells})
    return rows


def _heading(measure: Measure) -> dict[str, Any]:
    return {"title": measure.title, "arrow": _ARROWS[measure.better]}


def _cell(report: Report, measure: Measure, group: str) -> _Cell:
    figure = report.figure(measure.key, group)
    if figure is None:
        return _Cell("")
    reference = _number(figure.reference, measure.digits) if figure.reference is not None else ""
    return _Cell(_number(figure.estimate.value, measure.digits), _interval(figure.estimate, measure.digits), reference)


def _versus(comparison: Comparison) -> list[dict[str, Any]]:
    tables = []
    for run in comparison.runs[1:]:
        rows = []
        for d in comparison.differences:
            if d.other == run:
                counts = (d.paired.wins, d.paired.losses, d.paired.ties)
                rows.append(_difference_row(d.measure, d.paired.difference, counts, d.paired.p))
        rows += [_difference_row(s.measure, s.difference) for s in comparison.set_differences if s.other == run]
        tables.append({"name": run, "rows": rows})
    return tables


def _difference_row(
    key: str, difference: Estimate, counts: tuple[int, int, int] | None = None, p: float = math.nan
) -> dict[str, Any]:
    measure = measure_named(key)
    wins, losses, ties = counts or (None, None, None)
    total = max(1, sum(counts)) if counts else 1
    return _heading(measure) | {
        "value": _number(difference.value, measure.digits, signed=True),
        "interval": _interval(difference, measure.digits),
        "sure": difference.low > 0 or difference.high < 0,
        "wins": wins,
        "losses": losses,
        "ties": ties,
        "wins_share": 100 * (wins or 0) / total,
        "losses_share": 100 * (losses or 0) / total,
        "ties_share": 100 * (ties or 0) / total,
        "p": "" if math.isnan(p) else f"{p:.3f}" if p >= 0.001 else f"{p:.0e}",
    }


def _best_on(comparison: Comparison) -> list[dict[str, Any]]:
    return [
        {"title": measure_named(key).title, "counts": list(counts.values())}
        for key, counts in comparison.best_on.items()
    ]


def _plots(report: Report, images: Sequence[ImageMeasures]) -> list[str]:
    shown = [measure_named(key) for key in _PLOTTED if key in report.columns]
    drawn = [
        plots.distributions(shown[start : start + 3], report.columns, report.scores)
        for start in range(0, len(shown), 3)
    ]
    if "modern" in report.recipes:
        pooled = np.sum([image.histograms for image in images], axis=0)
        drawn.append(plots.dab_plots(report.columns, report.scores, pooled))
    return drawn


def _shelves(report: Report, ranking: Measure, tasks: Sequence[Task]) -> list[dict[str, Any]]:
    merit = np.nan_to_num(ranking.merit(report.columns[ranking.key]), nan=-np.inf, posinf=np.inf)
    order = np.argsort(-merit, kind="stable")
    middle = max(0, (len(order) - PER_SHELF) // 2)
    chosen = {
        "Best": order[:PER_SHELF],
        "Median": order[middle : middle + PER_SHELF],
        "Worst": order[-PER_SHELF:][::-1],
    }
    if len(order) < 3 * PER_SHELF:
        chosen = {"All, best first": order}
    return [
        {"title": title, "pictures": [_picture(report, tasks[i], int(i)) for i in members]}
        for title, members in chosen.items()
    ]


def _picture(report: Report, task: Task, index: int) -> dict[str, Any]:
    he, real = read_pair(task.pair)
    values = [(measure_named(key), report.columns[key][index]) for key in _PLOTTED if key in report.columns]
    return {
        "name": report.names[index],
        "score": report.scores[index],
        "lines": [{"title": measure.title, "value": _number(value, measure.digits)} for measure, value in values],
        "images": [_thumbnail(image) for image in (he, real, read_image(task.generated))],
    }


def _thumbnail(image: NDArray[np.uint8]) -> str:
    """A JPEG of at most 256 px a side as a data URI."""
    scale = min(1.0, THUMBNAIL_PX / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
    _, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


def _provenance(report: Report) -> Mapping[str, str]:
    lines = {key.capitalize(): value for key, value in report.origin.items() if value}
    if report.features:
        lines["Feature space"] = report.features
    for key, value in report.speed.items():
        lines[key.replace("_", " ").capitalize()] = f"{value:.3g}"
    lines["Bootstrap seed"] = str(report.seed)
    lines["Groups"] = f"{ALL} images and each HER2 score read from the names"
    return lines | dict(report.software.items())
