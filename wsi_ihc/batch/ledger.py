"""The results of a run: written to the records, told to the watcher, and shown in the summary while the run goes on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from wsi_ihc.batch import transitions
from wsi_ihc.batch.children import Ending
from wsi_ihc.batch.claims import Claims
from wsi_ihc.batch.cohort import Entry
from wsi_ihc.batch.records import Records, SlideRecord
from wsi_ihc.batch.summary import write_summary
from wsi_ihc.batch.watcher import Watcher
from wsi_ihc.errors import WsiIhcError, one_line

_SUMMARY_S = 30.0
_SOON_S = 2.0
_REST = 10
"""A summary of a large cohort takes a while: at least so many times as long passes before the next."""


@dataclass
class Ledger:
    """What is known about each slide of a run."""

    records: Records
    claims: Claims
    watcher: Watcher
    results: dict[str, SlideRecord] = field(default_factory=dict)
    _summarised: float = 0.0
    _pause_s: float = 0.0
    _shown: int = 0
    """Results that the summary shows."""

    def register(self, entries: Sequence[Entry]) -> None:
        """Writes a record for each slide that has none, so that status shows the whole cohort from the start."""
        for entry in entries:
            with suppress(Exception):  # the slide itself will fail
                if self.records.read(entry.name) is None:
                    self.records.write(entry.name, transitions.fresh(entry, self.records.output))

    def settle(self, entry: Entry, record: SlideRecord, *, news: bool = True) -> None:
        """Keeps how a slide ended and gives back its claim; without ``news`` nothing was to be done.

        Raises:
            StorageError: the record or the claim cannot be written.
        """
        if news or record != self.records.read(entry.name):
            self.records.write(entry.name, record)
        self.claims.release(entry.name)
        self.results[entry.name] = record
        self.watcher.ended(entry, record, news=news)

    def fail(self, entry: Entry, error: Exception) -> None:
        """Keeps an error as the failure of its slide, as far as it can be written."""
        if not isinstance(error, WsiIhcError):
            error = WsiIhcError(f"internal error: {type(error).__name__}: {one_line(error)}")
        record = self.records.read(entry.name) or transitions.blank(entry, self.records.output)
        record = transitions.failed(record, Ending(False, one_line(error)))
        with suppress(OSError, ValueError):
            self.records.write(entry.name, record)
        with suppress(OSError, ValueError):
            self.claims.release(entry.name)
        self.results[entry.name] = record
        self.watcher.ended(entry, record, news=True)

    def summarise(self) -> None:
        """Writes the summary when slides have ended, and at times; never for more than a tenth of the time."""
        now = time.monotonic()
        waited = now - self._summarised
        if waited > _SUMMARY_S or (len(self.results) != self._shown and waited > self._pause_s):
            self._shown = len(self.results)
            self.summarise_now()
            self._summarised = time.monotonic()
            self._pause_s = max(_SOON_S, _REST * (self._summarised - now))

    def summarise_now(self) -> None:
        """Writes the summary as far as it can be written: trouble with the folder shows when a record is written."""
        with suppress(OSError):
            write_summary(self.records)
