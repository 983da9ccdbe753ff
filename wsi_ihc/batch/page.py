"""The page that a person opens in the morning: one HTML file that needs no other."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from wsi_ihc.batch.records import FOLDER, Records, SlideRecord
from wsi_ihc.batch.tally import Tally

# What needs a person comes first.
_ORDER = {"failed": 0, "running": 1, "waiting": 2, "done": 3}


def render_page(records: Records, cohort: Mapping[str, SlideRecord], found: Tally) -> str:
    """The cohort as HTML: counts, and a row for each slide with its picture, state, cost and reason."""
    import jinja2

    template = files("wsi_ihc.batch").joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    rows = [_row(records, name, record) for name, record in cohort.items()]
    return environment.from_string(template).render(
        title=records.output.absolute().name or "cohort",
        tally=found,
        pace=f"{found.megapixels_per_s:.2f} Mpx/s" if found.megapixels_per_s else "–",
        left=duration(found.remaining_s) if found.remaining_s else "–",
        rows=sorted(rows, key=lambda row: _ORDER[row["state"]]),
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )


def duration(seconds: float) -> str:
    """``8 s``, ``3 min 05 s``, ``2 h 07 min``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def _row(records: Records, name: str, record: SlideRecord) -> dict[str, Any]:
    return {
        "slide": Path(record.slide).name,
        "folder": str(Path(record.slide).parent),
        "output": record.output,
        "state": record.state,
        "reason": record.reason.replace(f"{record.slide}: ", "", 1),
        "megapixels": f"{record.megapixels:.1f}" if record.megapixels else "",
        "seconds": duration(record.seconds) if record.attempts else "",
        "attempts": record.attempts or "",
        "who": f"process {record.process} on {record.host}" if record.state == "running" else "",
        "picture": _data_uri(records.path(name, ".jpg")) if record.state == "done" else "",
        "log": f"{FOLDER}/{name}.log" if record.attempts else "",
    }


def _data_uri(path: Path) -> str:
    try:
        return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}"
    except OSError:
        return ""
