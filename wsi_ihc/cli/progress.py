"""How a conversion shows that it lives: one bar on a terminal, plain lines in a log, nothing when quiet."""

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

from wsi_ihc.conversion.progress import Progress, Silence

_LOG_INTERVAL_S = 30.0


@contextmanager
def conversion_progress(quiet: bool) -> Generator[Progress]:
    """The display that fits: a bar on a terminal, lines elsewhere, silence when asked for."""
    if quiet:
        yield Silence()
    elif sys.stderr.isatty():
        with _bar() as progress:
            yield _Bar(progress)
    else:
        yield _Lines()


class _Lines:
    """A line at each stage, and every half minute while staining."""

    def stage(self, name: str) -> None:
        click.echo(name, err=True)

    def start(self, done: int, total: int, megapixels: float) -> None:
        self._done, self._total, self._megapixels = done, total, megapixels
        self._first, self._started = done, time.monotonic()
        self._said = self._started
        if done:
            click.echo(f"  resuming: {done} of {total} blocks are there", err=True)

    def advance(self, blocks: int) -> None:
        self._done += blocks
        now = time.monotonic()
        if now - self._said < _LOG_INTERVAL_S and self._done < self._total:
            return
        self._said = now
        rate = (self._done - self._first) / max(now - self._started, 1e-9)
        remaining = (self._total - self._done) / rate
        click.echo(
            f"  {self._done}/{self._total} blocks, {rate * self._megapixels:.2f} Mpx/s, {duration(remaining)} left",
            err=True,
        )


class _Bar:
    def __init__(self, progress: rich_progress.Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("opening", total=None, rate=0.0)

    def stage(self, name: str) -> None:
        self._progress.update(self._task, description=name)

    def start(self, done: int, total: int, megapixels: float) -> None:
        self._done, self._megapixels, self._started = 0, megapixels, time.monotonic()
        self._progress.update(self._task, completed=done, total=total)

    def advance(self, blocks: int) -> None:
        self._done += blocks
        rate = self._done * self._megapixels / max(time.monotonic() - self._started, 1e-9)
        self._progress.update(self._task, advance=blocks, rate=rate)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.fields['rate']:.2f} Mpx/s")


def _bar() -> rich_progress.Progress:
    return rich_progress.Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("blocks"),
        _Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def duration(seconds: float) -> str:
    """``8 s``, ``3 min 05 s``, ``2 h 07 min``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
