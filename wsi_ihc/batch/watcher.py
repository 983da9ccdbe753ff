"""Whom a run over a cohort tells how it goes: the command line draws a display, a program may do its own."""

from __future__ import annotations

from typing import Protocol

from wsi_ihc.batch.cohort import Entry
from wsi_ihc.batch.records import SlideRecord


class Watcher(Protocol):
    """Told how the run goes, from the thread that runs it."""

    def begin(self, total: int) -> None:
        """So many slides are looked at."""

    def started(self, entry: Entry, why: str) -> None:
        """Its child works now; ``why`` where that needs saying."""

    def said(self, entry: Entry, line: str) -> None:
        """Its child's last line is another one."""

    def ended(self, entry: Entry, record: SlideRecord, *, news: bool) -> None:
        """Done, failed, or waiting again; without ``news`` nothing was to be done."""

    def note(self, text: str) -> None:
        """One line about the run as a whole."""
