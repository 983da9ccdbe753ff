"""The cohort in three files: ``summary.json`` for programs, ``summary.csv`` for spreadsheets, a page for people.

All three show paths relative to the folder that holds the slides, and text from names and files is escaped.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from wsi_ihc.batch.page import render_page
from wsi_ihc.batch.recipe import changed_settings
from wsi_ihc.batch.records import Records, SlideRecord, write_whole
from wsi_ihc.batch.search import LeftOut
from wsi_ihc.batch.sharing import Places
from wsi_ihc.batch.tally import Tally, read_cohort, tally
from wsi_ihc.machine.text import json_text, spreadsheet_cell

COLUMNS = (
    "slide", "output", "state", "warnings", "reason", "generator", "settings", "mpp", "tissue", "seconds", "megapixels",
    "attempts", "process", "host", "started", "ended", "digest", "version",
)  # fmt: skip
"""Of the CSV, and the keys of a slide in the JSON. Seconds are seconds of work, megapixels those of the output."""


def write_summary(records: Records) -> None:
    """Written again from every record of the folder, so that batches that share it agree in the end.

    Raises:
        StorageError: it cannot be written.
    """
    cohort = read_cohort(records)
    found, left_out = tally(cohort), records.left_out()
    write_whole(records.output / "summary.json", json_text(as_json(records, cohort, found, left_out)) + "\n")
    write_whole(records.output / "summary.csv", as_csv(records, cohort, left_out))
    write_whole(records.output / "index.html", render_page(records, cohort, found, left_out))


def as_json(
    records: Records, cohort: Mapping[str, SlideRecord], found: Tally, left_out: Sequence[LeftOut] = ()
) -> dict[str, object]:
    """Counts, pace, every slide, and what was left out."""
    places = Places.of(cohort, records.output)
    slides = [{"name": name} | _row(places, record) for name, record in cohort.items()]
    omitted = [{"name": places.text(each.name), "reason": places.text(each.reason)} for each in left_out]
    return {"total": found.total} | asdict(found) | {"slides": slides, "left_out": omitted}


def as_csv(records: Records, cohort: Mapping[str, SlideRecord], left_out: Sequence[LeftOut] = ()) -> str:
    """A line for each slide, then one for each file that was left out."""
    places = Places.of(cohort, records.output)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    rows = [_row(places, record) for record in cohort.values()]
    rows += [
        {"slide": places.text(each.name), "state": "left out", "reason": places.text(each.reason)} for each in left_out
    ]
    for row in rows:
        row["warnings"] = "; ".join(row.get("warnings", ()))
        writer.writerow([spreadsheet_cell(row.get(column)) for column in COLUMNS])
    return stream.getvalue()


def _row(places: Places, record: SlideRecord) -> dict[str, Any]:
    own = {"slide", "reason", "warnings", "settings"}
    return record.model_dump(include=set(COLUMNS) - own) | {
        "slide": places.slide(record.slide),
        "reason": places.reason(record),
        "warnings": [places.text(text) for text in record.warnings],
        "settings": places.text(changed_settings(record)),
    }
