"""Callbacks of a run over a cohort. The command line draws a display; a program may pass its own."""

from __future__ import annotations

from typing import Protocol

from wsi_ihc.batch.cohort import Entry
from wsi_ihc.batch.records import SlideRecord


class Watcher(Protocol):
    """Called from the thread that runs the cohort."""

    def begin(self, total: int) -> None:
        """The run starts with ``total`` slides."""

    def started(self, entry: Entry, why: str) -> None:
        """The conversion of a slide starts; ``why`` where there is a reason to name."""

    def said(self, entry: Entry, line: str) -> None:
        """The conversion has printed ``line``."""

    def ended(self, entry: Entry, record: SlideRecord, *, news: bool) -> None:
        """Done, failed, or waiting again; ``news`` is False where nothing was to be done."""

    def note(self, text: str) -> None:
        """One line about the run as a whole."""
