"""``wsi-ihc status``: where a cohort stands, while it runs or afterwards, from any machine that sees its folder."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsi_ihc.errors import OutputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from wsi_ihc.batch import SlideRecord, Tally

_ORDER = {"done": 0, "waiting": 1, "running": 2, "failed": 3}
_COLOURS = {"done": "green", "waiting": "dim", "running": "blue", "failed": "red"}
_WATCH_S = 2.0


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="OUT")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.option("--watch", is_flag=True, help="Keep showing it, until nothing runs any more.")
def status(folder: Path, as_json: bool, watch: bool) -> None:
    """Show what is done, running, failed and why, or waiting in OUT; the pace, and roughly the time that is left."""
    from wsi_ihc.batch import Records, read_cohort, tally
    from wsi_ihc.batch.summary import as_json as summary

    records = Records(folder)
    if not records.folder.is_dir():
        raise OutputError(f"{folder}: no batch has worked here; give the folder that was its -o")
    if as_json:
        cohort = read_cohort(records)
        click.echo(json.dumps(summary(cohort, tally(cohort)), indent=2, ensure_ascii=False))
        return
    from rich.console import Console, Group
    from rich.live import Live

    console = Console()

    def view() -> tuple[RenderableType, Tally]:
        cohort = read_cohort(records)
        found = tally(cohort)
        return Group(_table(cohort, console.is_terminal), _line(found)), found

    shown, found = view()
    if not watch:
        # In a file or a pipe a reason keeps to one line, however long.
        console.print(shown, soft_wrap=not console.is_terminal)
        return
    with Live(shown, console=console, auto_refresh=False) as live:
        while found.running:
            time.sleep(_WATCH_S)
            shown, found = view()
            live.update(shown, refresh=True)


def _table(cohort: dict[str, SlideRecord], wide: bool) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    from wsi_ihc.cli.progress import duration

    rows = sorted(cohort.items(), key=lambda item: _ORDER[item[1].state])
    cells = [
        (
            Path(record.slide).name,
            record.state,
            f"{record.megapixels:.1f}" if record.megapixels else "",
            duration(record.seconds) if record.attempts else "",
            _why(record),
        )
        for _, record in rows
    ]
    heads = ("SLIDE", "STATE", "MPX", "TIME", "WHY")
    if not wide:
        widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
        lines = (
            "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)) for row in (heads, *cells)
        )
        return Text("\n".join(line.rstrip() for line in lines))
    table = Table(*heads[:2], box=None, pad_edge=False)
    for head, justify in zip(heads[2:], ("right", "right", "left"), strict=True):
        table.add_column(head, justify=justify)  # type: ignore[arg-type]
    for row in cells:
        table.add_row(*(Text(word, _COLOURS[row[1]] if index == 1 else "") for index, word in enumerate(row)))
    return table


def _why(record: SlideRecord) -> str:
    if record.state == "running":
        return f"process {record.process} on {record.host}"
    return record.reason.removeprefix(f"{record.slide}: ") if record.state != "done" else ""


def _line(found: Tally) -> RenderableType:
    from rich.text import Text

    from wsi_ihc.cli.progress import duration

    words = [f"{getattr(found, state)} {state}" for state in ("done", "running", "failed", "waiting")]
    if found.megapixels_per_s:
        words.append(f"{found.megapixels_per_s:.2f} Mpx/s")
    if found.remaining_s:
        words.append(f"about {duration(found.remaining_s)} left")
    return Text(f"{found.total} slides: " + ", ".join(words))
