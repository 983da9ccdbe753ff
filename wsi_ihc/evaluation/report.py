"""The files of an evaluation: writes report.json and images.csv, and reads them for a comparison."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ihc import RESEARCH_USE_ONLY
from wsi_ihc.errors import DataSetError, StorageError
from wsi_ihc.evaluation.comparison import Comparison
from wsi_ihc.evaluation.recipes import Recipe
from wsi_ihc.evaluation.summary import Figure
from wsi_ihc.measures.bootstrap import Estimate

JSON_NAME, CSV_NAME, PAGE_NAME, COMPARISON_NAME = "report.json", "images.csv", "report.html", "comparison.csv"
_FORMAT = "wsi-ihc evaluation 1"


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one run on one set of images. ``columns`` holds a value per image, in the order of ``names``."""

    name: str
    names: tuple[str, ...]
    scores: tuple[str | None, ...]
    recipes: tuple[Recipe, ...]
    figures: tuple[Figure, ...]
    columns: Mapping[str, NDArray[np.float64]]
    features: str | None = None
    origin: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    speed: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    software: Mapping[str, str] = field(default_factory=dict)

    def figure(self, measure: str, group: str = "all") -> Figure | None:
        """The figure of a measure and a group, if it was computed."""
        return next((f for f in self.figures if (f.measure, f.group) == (measure, group)), None)


def write_report(report: Report, folder: Path, comparison: Comparison | None = None) -> None:
    """Write the JSON and CSV files.

    Raises:
        StorageError: a file cannot be written.
    """
    content = {"format": _FORMAT, "research_use_only": RESEARCH_USE_ONLY} | asdict(report)
    compared = asdict(comparison) if comparison else None
    content |= {"images": len(report.names), "comparison": compared}
    for in_the_csv in ("columns", "names", "scores"):
        del content[in_the_csv]
    if compared:
        del compared["images"]  # in comparison.csv
    try:
        text = json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False)
        (folder / JSON_NAME).write_text(text + "\n", encoding="utf-8")
        _write_csv(folder / CSV_NAME, report)
        if comparison:
            _write_comparison(folder / COMPARISON_NAME, comparison)
    except OSError as error:
        raise StorageError(f"{folder}: cannot write the report ({error.strerror or error})") from None


def read_report(path: Path) -> Report:
    """A report by its folder or its report.json.

    Raises:
        DataSetError: the files are missing or no report.
    """
    folder = path.parent if path.name == JSON_NAME else path
    try:
        content = json.loads((folder / JSON_NAME).read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise ValueError(f"expected format {_FORMAT!r}")
        names, scores, columns = _read_csv(folder / CSV_NAME)
        figures = tuple(_figure(entry) for entry in content["figures"])
        return Report(content["name"], names, scores, tuple(content["recipes"]), figures, columns, content["features"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataSetError(f"{folder}: not a report of wsi-ihc evaluate ({' '.join(str(error).split())})") from None


def _figure(entry: dict[str, Any]) -> Figure:
    value, low, high = (_number(entry["estimate"][key]) for key in ("value", "low", "high"))
    return Figure(
        entry["measure"], entry["group"], Estimate(value, low, high, entry["estimate"]["n"]), entry["reference"]
    )


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _plain(value: Any) -> Any:
    """JSON has neither NaN nor infinity: an undefined number becomes null, infinity the text ``inf``."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _write_csv(path: Path, report: Report) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "score", *report.columns])
        for index, (name, score) in enumerate(zip(report.names, report.scores, strict=True)):
            writer.writerow([name, score or "", *(_cell(column[index]) for column in report.columns.values())])


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.10g}"


def _read_csv(path: Path) -> tuple[tuple[str, ...], tuple[str | None, ...], dict[str, NDArray[np.float64]]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row.setdefault("score", row.pop("level", ""))  # its name in reports of 0.1
    keys = [key for key in (rows[0] if rows else {}) if key not in ("name", "score")]
    columns = {key: np.array([float(row[key] or "nan") for row in rows]) for key in keys}
    return tuple(row["name"] for row in rows), tuple(row["score"] or None for row in rows), columns


def _write_comparison(path: Path, comparison: Comparison) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "score", "measure", *comparison.runs, "best"])
        for row in comparison.images:
            writer.writerow([row.name, row.score or "", row.measure, *map(_cell, row.values), row.best])


def group_names(figures: Sequence[Figure]) -> list[str]:
    """Groups in the order in which they were computed: all, then the scores."""
    return list(dict.fromkeys(figure.group for figure in figures))
