"""``wsi-ihc status``: the state of a batch, while it runs or afterwards, from any machine that sees its folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsi_ihc.errors import OutputError
from wsi_ihc.machine.text import json_text, printable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from wsi_ihc.batch import SlideRecord, Tally

_ORDER = {"done": 0, "waiting": 1, "running": 2, "failed": 3}
_COLOURS = {"done": "green", "waiting": "dim", "running": "blue", "failed": "red"}
_WATCH_S = 2.0


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="OUT")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.option("--watch", is_flag=True, help="Keep showing it until nothing runs.")
def status(folder: Path, as_json: bool, watch: bool) -> None:
    """Show which slides in OUT are done, running, failed and why, or waiting; the pace and roughly the time left."""
    from wsi_ihc.batch import Records, read_cohort, tally
    from wsi_ihc.batch.summary import as_json as summary

    records = Records(folder)
    if not records.folder.is_dir():
        raise OutputError(f"{folder}: no batch has written here; give the folder that was its -o")
    if as_json:
        cohort = read_cohort(records)
        click.echo(json_text(summary(records, cohort, tally(cohort), records.left_out())))
        return
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    console = Console()

    def view() -> tuple[RenderableType, Tally]:
        cohort = read_cohort(records)
        found = tally(cohort)
        left_out = [Text(f"left out: {printable(each)}") for each in records.left_out()]
        return Group(_table(cohort, console.is_terminal), *left_out, _line(found, len(left_out))), found

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

    from wsi_ihc.cli.batch_display import name_of, warnings_in_words
    from wsi_ihc.machine.stopwatch import duration

    rows = sorted(cohort.items(), key=lambda item: _ORDER[item[1].state])
    cells = [
        (
            name_of(record),
            f"{record.state}, {warnings_in_words(record)}" if record.warnings else record.state,
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
        table.add_row(
            *(Text(word, _COLOURS[word.partition(",")[0]] if index == 1 else "") for index, word in enumerate(row))
        )
    return table


def _why(record: SlideRecord) -> str:
    from wsi_ihc.batch.sharing import short_reason

    match record.state:
        case "running":
            why = f"process {record.process} on {record.host}"
        case "done":
            why = "; ".join(record.warnings)
        case _:
            why = short_reason(record)
    return printable(why)


def _line(found: Tally, left_out: int) -> RenderableType:
    from rich.text import Text

    from wsi_ihc.machine.stopwatch import duration

    words = [f"{getattr(found, state)} {state}" for state in ("done", "running", "failed", "waiting")]
    words += [f"{left_out} left out"] if left_out else []
    if found.megapixels_per_s:
        words.append(f"{found.megapixels_per_s:.2f} Mpx/s")
    if found.remaining_s:
        words.append(f"about {duration(found.remaining_s)} left")
    return Text(f"{found.total} slides: " + ", ".join(words))
