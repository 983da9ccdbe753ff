"""How a batch shows that it lives: a line for each running slide over one bar, plain lines in a log, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from wsi_ihc.batch import Entry, SlideRecord, Watcher
from wsi_ihc.cli.progress import duration


@contextmanager
def batch_display(quiet: bool) -> Generator[Watcher]:
    """The display that fits."""
    if quiet:
        yield _Silence()
    elif sys.stderr.isatty():
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[line]}"),
            console=Console(stderr=True),
            transient=True,
        ) as progress:
            yield _Display(progress)
    else:
        yield _Lines()


class _Silence:
    def begin(self, total: int) -> None: ...

    def started(self, entry: Entry, why: str) -> None: ...

    def said(self, entry: Entry, line: str) -> None: ...

    def ended(self, entry: Entry, record: SlideRecord, *, news: bool) -> None: ...

    def note(self, text: str) -> None: ...


class _Lines(_Silence):
    """A line when a slide begins and one when it ends."""

    _total = _ended = 0

    def begin(self, total: int) -> None:
        self._total = total

    def started(self, entry: Entry, why: str) -> None:
        click.echo(f"{entry.slide.name}: begins{f' ({why})' if why else ''}", err=True)

    def ended(self, entry: Entry, record: SlideRecord, *, news: bool) -> None:
        self._ended += 1
        click.echo(f"[{self._ended}/{self._total}] {entry.slide.name}: {outcome(record, news)}", err=True)

    def note(self, text: str) -> None:
        click.echo(text, err=True)


class _Display:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._failed = 0
        self._rows: dict[str, TaskID] = {}

    def begin(self, total: int) -> None:
        self._all = self._progress.add_task("slides", total=total, line="")

    def started(self, entry: Entry, why: str) -> None:
        self._rows[entry.name] = self._progress.add_task(escape(entry.slide.name), total=None, line=escape(why))

    def said(self, entry: Entry, line: str) -> None:
        self._progress.update(self._rows[entry.name], line=escape(line))
        done, _, rest = line.partition("/")
        total = rest.partition(" ")[0]
        if done.isdecimal() and total.isdecimal():  # the conversion's own count of blocks
            self._progress.update(self._rows[entry.name], completed=int(done), total=int(total))

    def ended(self, entry: Entry, record: SlideRecord, *, news: bool) -> None:
        if entry.name in self._rows:
            self._progress.remove_task(self._rows.pop(entry.name))
        self._failed += record.state == "failed"
        line = f"{self._failed} failed" if self._failed else ""
        self._progress.update(self._all, advance=1, line=line)
        if news:
            self.note(f"{entry.slide.name}: {outcome(record, news)}")

    def note(self, text: str) -> None:
        self._progress.console.print(escape(text), soft_wrap=True, highlight=False)


def outcome(record: SlideRecord, news: bool) -> str:
    """``done in 3 min 05 s``, ``done already``, ``failed: …``."""
    if record.state == "done":
        return f"done in {duration(record.seconds)}" if news else "done already"
    before = "" if news else " before"
    return f"{record.state}{before}: {record.reason.removeprefix(f'{Path(record.slide)}: ')}"
