"""Progress of a conversion: a bar on a terminal, plain lines in a log, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

import click
from rich import progress as rich_progress
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from wsi_ihc.conversion.progress import Progress, Silence, Stage
from wsi_ihc.machine.stopwatch import duration

_LOG_INTERVAL_S = 30.0


@contextmanager
def conversion_progress(quiet: bool) -> Generator[Progress]:
    """Yields the display that fits standard error: a bar on a terminal, lines elsewhere, none when ``quiet``."""
    if quiet:
        yield Silence()
    elif sys.stderr.isatty():
        with _bar() as progress:
            yield _Bar(progress)
    else:
        yield _Lines()


class _Lines:
    """Prints a line at each stage, and every half minute while blocks are stained."""

    def stage(self, name: Stage) -> None:
        click.echo(name, err=True)

    def start(self, done: int, total: int, megapixels: float) -> None:
        self._done, self._total, self._megapixels = done, total, megapixels
        self._pace, self._said = _Pace(), time.monotonic()
        if done:
            click.echo(f"  continuing: {done} of {total} blocks were finished before", err=True)

    def advance(self, blocks: int) -> None:
        self._done += blocks
        rate = self._pace.advance(blocks)
        now = time.monotonic()
        if now - self._said < _LOG_INTERVAL_S and self._done < self._total:
            return
        self._said = now
        words = [f"  {self._done}/{self._total} blocks"]
        if rate:
            remaining = duration((self._total - self._done) / rate)
            words += [f"{rate * self._megapixels:.2f} Mpx/s", f"{remaining} left"]
        click.echo(", ".join(words), err=True)


class _Pace:
    """Blocks a second, counted from the end of the first step: that one also waits for the generator to start."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._blocks = 0

    def advance(self, blocks: int) -> float:
        """Counts ``blocks`` more; 0 until a second step is finished."""
        now = time.monotonic()
        if self._began is None:
            self._began = now
            return 0.0
        self._blocks += blocks
        return self._blocks / max(now - self._began, 1e-9)


class _Bar:
    def __init__(self, progress: rich_progress.Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("opening", total=None, rate=0.0)

    def stage(self, name: Stage) -> None:
        self._progress.update(self._task, description=name)

    def start(self, done: int, total: int, megapixels: float) -> None:
        self._megapixels, self._pace = megapixels, _Pace()
        self._progress.update(self._task, completed=done, total=total)

    def advance(self, blocks: int) -> None:
        rate = self._pace.advance(blocks) * self._megapixels
        self._progress.update(self._task, advance=blocks, rate=rate)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.fields['rate']:.2f} Mpx/s" if task.fields["rate"] else "")


def _bar() -> rich_progress.Progress:
    return rich_progress.Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),  # the line fits 80 columns
        MofNCompleteColumn(),
        TextColumn("blocks"),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=Console(stderr=True),
        transient=True,
    )
