"""The cohort in three files: ``summary.json`` for programs, ``summary.csv`` for spreadsheets, a page for people."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict

from wsi_ihc.batch.page import render_page
from wsi_ihc.batch.records import Records, SlideRecord, write_whole
from wsi_ihc.batch.tally import Tally, read_cohort, tally

_COLUMNS = (
    "slide", "output", "state", "reason", "seconds", "megapixels", "attempts",
    "process", "host", "started", "ended", "digest", "version",
)  # fmt: skip


def write_summary(records: Records) -> None:
    """Written anew from every record of the folder, so that batches that share it agree in the end.

    Raises:
        StorageError: it cannot be written.
    """
    cohort = read_cohort(records)
    found = tally(cohort)
    write_whole(
        records.output / "summary.json", json.dumps(as_json(cohort, found), indent=2, ensure_ascii=False) + "\n"
    )
    write_whole(records.output / "summary.csv", as_csv(cohort))
    write_whole(records.output / "index.html", render_page(records, cohort, found))


def as_json(cohort: Mapping[str, SlideRecord], found: Tally) -> dict[str, object]:
    """Counts, pace, and every slide."""
    slides = [{"name": name} | record.model_dump(include=set(_COLUMNS)) for name, record in cohort.items()]
    return {"total": found.total} | asdict(found) | {"slides": slides}


def as_csv(cohort: Mapping[str, SlideRecord]) -> str:
    """A line for each slide."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for record in cohort.values():
        values = record.model_dump(include=set(_COLUMNS))
        writer.writerow([_cell(values[column]) for column in _COLUMNS])
    return stream.getvalue()


def _cell(value: object) -> object:
    """A name that begins like a formula must stay a name in a spreadsheet."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value
