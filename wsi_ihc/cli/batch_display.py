"""Progress of a batch: a line for each running slide over one bar for all, plain lines in a log, or nothing."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn
from rich.table import Column

from wsi_ihc.batch import Entry, SlideRecord, Watcher
from wsi_ihc.batch.sharing import short_reason
from wsi_ihc.cli.terminal import say
from wsi_ihc.machine.stopwatch import duration
from wsi_ihc.machine.text import printable

_BLOCKS = re.compile(r"(\d+)/(\d+) blocks?,? *(.*)")
"""A conversion's own line: ``3/8 blocks, 1.00 Mpx/s, 2 min 05 s left``."""
_RESUMING = "resuming"
_NAME_WIDTH = 22
_LONGEST_NAME = 60


@contextmanager
def batch_display(quiet: bool) -> Generator[Watcher]:
    """The display that fits standard error."""
    if quiet:
        yield _Silence()
    elif sys.stderr.isatty():
        with Progress(*_columns(), console=Console(stderr=True), transient=True, expand=True) as progress:
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
    """A line when a slide starts, when it resumes, and when it ends."""

    _total = _ended = 0

    def begin(self, total: int) -> None:
        self._total = total

    def started(self, entry: Entry, why: str) -> None:
        say(f"{entry.slide.name}: starts{f' ({why})' if why else ''}", err=True)

    def said(self, entry: Entry, line: str) -> None:
        if line.startswith(_RESUMING):
            say(f"{entry.slide.name}: {line}", err=True)

    def ended(self, entry: Entry, record: SlideRecord, *, news: bool) -> None:
        self._ended += 1
        say(f"[{self._ended}/{self._total}] {entry.slide.name}: {outcome(record, news)}", err=True)

    def note(self, text: str) -> None:
        say(text, err=True)


class _Display:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._started = time.monotonic()
        self._total = self._failed = self._kept = self._made = 0
        self._rows: dict[str, TaskID] = {}

    def begin(self, total: int) -> None:
        self._total = total
        self._all = self._progress.add_task("all slides", total=total, step=f"0/{total}", line="")

    def started(self, entry: Entry, why: str) -> None:
        name = escape(printable(entry.slide.name))
        self._rows[entry.name] = self._progress.add_task(name, total=None, step="", line=escape(printable(why)))

    def said(self, entry: Entry, line: str) -> None:
        task, found = self._rows[entry.name], _BLOCKS.match(line)
        if found:
            done, total, rest = int(found[1]), int(found[2]), found[3]
            self._progress.update(task, completed=done, total=total, step=f"{done}/{total}", line=escape(rest))
        else:
            self._progress.update(task, line=escape(printable(line)))

    def ended(self, entry: Entry, record: SlideRecord, *, news: bool) -> None:
        if entry.name in self._rows:
            self._progress.remove_task(self._rows.pop(entry.name))
        self._failed += record.state == "failed"
        self._made += news
        self._kept += not news
        ended = self._made + self._kept
        self._progress.update(self._all, advance=1, step=f"{ended}/{self._total}", line=self._state(ended))
        if news:
            self.note(f"{entry.slide.name}: {outcome(record, news)}")

    def note(self, text: str) -> None:
        self._progress.console.print(escape(printable(text)), soft_wrap=True, highlight=False)

    def _state(self, ended: int) -> str:
        """What the last line says: failures, slides that were done before, and the time that is left."""
        words = [f"{self._failed} failed"] if self._failed else []
        words += [f"{self._kept} done before"] if self._kept else []
        if self._made and ended < self._total:
            each = (time.monotonic() - self._started) / self._made
            words.append(f"about {duration(each * (self._total - ended))} left")
        return ", ".join(words)


def _columns() -> tuple[ProgressColumn, ...]:
    """Name, bar, step, and what is left of the line: all stay in sight on 80 columns, and only a long name is cut."""
    return (
        TextColumn("{task.description}", table_column=Column(width=_NAME_WIDTH, no_wrap=True, overflow="ellipsis")),
        BarColumn(bar_width=12),
        TextColumn("{task.fields[step]}", justify="right", table_column=Column(min_width=5, no_wrap=True)),
        TextColumn(
            "[dim]{task.fields[line]}", table_column=Column(ratio=1, min_width=32, no_wrap=True, overflow="ellipsis")
        ),
    )


def outcome(record: SlideRecord, news: bool) -> str:
    """``done in 3 min 05 s``, ``done already``, ``done, 1 warning: …``, ``failed: …``."""
    if record.state == "done":
        done = f"done in {duration(record.seconds)}" if news else "done already"
        return f"{done}, {warnings_in_words(record)}: {'; '.join(record.warnings)}" if record.warnings else done
    before = "" if news else " before"
    return f"{record.state}{before}: {short_reason(record)}"


def warnings_in_words(record: SlideRecord) -> str:
    """``1 warning``, ``2 warnings``; empty for none."""
    count = len(record.warnings)
    return f"{count} warning{'s' if count > 1 else ''}" if count else ""


def name_of(record: SlideRecord) -> str:
    """The slide's file name, printable; a very long one without its middle."""
    name = printable(Path(record.slide).name)
    return name if len(name) <= _LONGEST_NAME else f"{name[:40]}…{name[-16:]}"
