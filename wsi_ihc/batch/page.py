"""The page of a batch: one HTML file beside the outputs. It needs no network; pictures lie in the folder of records."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from typing import Any

from wsi_ihc import RESEARCH_USE_ONLY
from wsi_ihc.batch.recipe import changed_settings
from wsi_ihc.batch.records import FOLDER, Records, SlideRecord
from wsi_ihc.batch.search import LeftOut
from wsi_ihc.batch.sharing import Places, link
from wsi_ihc.batch.tally import Tally
from wsi_ihc.batch.thumbnails import he_picture, ihc_picture
from wsi_ihc.machine.regular_files import is_regular
from wsi_ihc.machine.stopwatch import duration
from wsi_ihc.machine.text import printable

# What needs a person comes first.
_ORDER = {"failed": 0, "running": 1, "waiting": 2, "done": 3}
_COLUMNS = (
    ("slide", "Slide", False),
    ("state", "State", False),
    ("why", "Reason and warnings", False),
    ("generator", "Generator", False),
    ("mpp", "um/px", True),
    ("tissue", "Tissue", True),
    ("megapixels", "Mpx", True),
    ("seconds", "Time", True),
)
"""Key, label, and whether it is a number."""


def render_page(
    records: Records, cohort: Mapping[str, SlideRecord], found: Tally, left_out: Sequence[LeftOut] = ()
) -> str:
    """The cohort as HTML: counts, a row for each slide, and what was left out."""
    import jinja2

    template = files("wsi_ihc.batch").joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    places = Places.of(cohort, records.output)
    rows = [_row(records, places, name, record) for name, record in cohort.items()]
    return environment.from_string(template).render(
        title=printable(records.output.absolute().name) or "batch",
        research_use_only=RESEARCH_USE_ONLY,
        tally=found,
        doubtful=sum(bool(record.warnings) for record in cohort.values()),
        live=found.running > 0,
        pace=f"{found.megapixels_per_s:.2f} Mpx/s" if found.megapixels_per_s else "–",
        left=duration(found.remaining_s) if found.remaining_s else "–",
        columns=_COLUMNS,
        rows=sorted(rows, key=lambda row: row["order"]),
        left_out=[{"name": places.text(each.name), "reason": places.text(each.reason)} for each in left_out],
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z"),
    )


def _row(records: Records, places: Places, name: str, record: SlideRecord) -> dict[str, Any]:
    done = record.state == "done"
    who = f"process {record.process} on {record.host}" if record.state == "running" else ""
    reason, warnings = places.reason(record) or printable(who), [places.text(text) for text in record.warnings]
    return {
        "slide": places.slide(record.slide),
        "output": printable(record.output),
        "state": record.state,
        "order": _ORDER[record.state],
        "reason": reason,
        "warnings": warnings,
        "why": " ".join([reason, *warnings]),
        "generator": printable(record.generator or ""),
        "settings": places.text(changed_settings(record)),
        "mpp": record.mpp,
        "mpp_text": f"{record.mpp:.4g}" if record.mpp else "",
        "tissue": record.tissue,
        "tissue_text": "" if record.tissue is None else f"{record.tissue:.1%}",
        "megapixels": record.megapixels,
        "megapixels_text": f"{record.megapixels:.1f}" if record.megapixels else "",
        "seconds": record.seconds,
        "seconds_text": duration(record.seconds) if record.attempts else "",
        "attempts": record.attempts,
        "he": _picture(records, he_picture(records.folder, name)) if done else "",
        "ihc": _picture(records, ihc_picture(records.folder, name)) if done else "",
        "links": list(_links(records, name, record)),
        "view": f"wsi-ihc view {shlex.quote(printable(record.output))}" if done else "",
    }


def _picture(records: Records, path: Any) -> str:
    return link(path.relative_to(records.output).parts) if is_regular(path) else ""


def _links(records: Records, name: str, record: SlideRecord) -> Iterable[tuple[str, str]]:
    """Text and relative address of what there is about a slide."""
    places = [("output", (record.output,)), ("report", (f"{name}.html",)), ("viewer", (f"{name}.view", "index.html"))]
    if record.state == "done":
        yield from ((text, link(parts)) for text, parts in places if records.output.joinpath(*parts).is_file())
    if record.attempts:
        yield "log", link((FOLDER, f"{name}.log"))
