"""The run over a cohort: claims slides, starts a child for each, watches it, and records how it ended."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from wsi_ihc.batch import transitions
from wsi_ihc.batch.children import ConvertCommand, Ending, convert_command, fingerprints, generator_fingerprint
from wsi_ihc.batch.claims import BEAT_S, Claims
from wsi_ihc.batch.cohort import Entry
from wsi_ihc.batch.decisions import decide
from wsi_ihc.batch.interrupts import Interrupts, noted_interrupts
from wsi_ihc.batch.jobs import GRACE_S, Job
from wsi_ihc.batch.ledger import Ledger
from wsi_ihc.batch.options import BatchOptions, with_threads
from wsi_ihc.batch.prefetch import Cache
from wsi_ihc.batch.recipe import make_recipe
from wsi_ihc.batch.records import Records, SlideRecord
from wsi_ihc.batch.thumbnails import keep_thumbnail
from wsi_ihc.batch.watcher import Watcher
from wsi_ihc.errors import ClusterError, GeneratorError, StorageError, one_line

_TICK_S = 0.2
_OTHERS_S = 1.0


def run_batch(
    entries: Sequence[Entry],
    folder: Path,
    options: BatchOptions,
    watcher: Watcher,
    *,
    command: ConvertCommand = convert_command,
    fingerprint: Callable[[str], str] = generator_fingerprint,
) -> dict[str, SlideRecord]:
    """Attempts every slide, each in a process of its own, and returns the record of each by its name.

    Whatever happens to one slide is that slide's failure; the others go on. Slides that another batch has claimed are
    waited for. When interrupted the children are ended, and what they have finished is kept.

    Raises:
        SettingsError: before the first slide.
        GeneratorError: before the first slide, where no generator of the cohort can be used.
        StorageError: records cannot be written any more; children are ended.
        ClusterError: the dask cluster is lost, which every slide needs; slides that are not done wait.
        KeyboardInterrupt: after the children have ended.
    """
    seats = options.seats()
    generators = fingerprints(entries, fingerprint)
    records = Records(folder)
    cache = Cache.open(options.cache, options.cache_bytes) if options.cache else None
    run = _Run(
        folder, options, watcher, command, generators,
        Ledger(records, Claims(records.folder, options.stale_after_s), watcher), cache, seats, deque(entries),
    )  # fmt: skip
    watcher.begin(len(entries))
    with noted_interrupts() as run.interrupts:
        try:
            run.ledger.register(entries)
            run.work()
        finally:
            run.close()
    return run.ledger.results


@dataclass
class _Run:
    folder: Path
    options: BatchOptions
    watcher: Watcher
    command: ConvertCommand
    generators: Mapping[str, str | GeneratorError]
    ledger: Ledger
    cache: Cache | None
    seats: list[dict[str, str]]
    pending: deque[Entry]
    ready: deque[Job] = field(default_factory=deque)
    running: list[Job] = field(default_factory=list)
    elsewhere: dict[str, Entry] = field(default_factory=dict)
    beaten: float = field(default_factory=time.monotonic)
    interrupts: Interrupts = field(default_factory=Interrupts)
    asked: float = 0.0
    mentioned: bool = False
    """Whether the user knows that the file system has no locks."""

    @property
    def records(self) -> Records:
        return self.ledger.records

    @property
    def claims(self) -> Claims:
        return self.ledger.claims

    def work(self) -> None:
        while self.pending or self.ready or self.running or self.elsewhere:
            self.interrupts.check()
            self._beat()
            for job in list(self.running):
                self._with(job.entry, partial(self._watch, job))
            self._ask_others()
            while self.pending and self._wants_more():
                entry = self.pending.popleft()
                self._with(entry, partial(self._consider, entry))
                self.interrupts.check()
                self._beat()
            while self.seats and self.ready and self.ready[0].source.done():
                job = self.ready.popleft()
                self._with(job.entry, partial(self._start, job))
            self.ledger.summarise()
            if self.running or self.elsewhere or (self.ready and not self.ready[0].source.done()):
                time.sleep(_TICK_S)

    def _with(self, entry: Entry, step: Callable[[], None]) -> None:
        """Does ``step`` for one slide; an error is that slide's failure, unless it concerns every slide."""
        try:
            step()
        except (ClusterError, MemoryError):
            raise
        except Exception as error:
            if isinstance(error, StorageError) and not self.records.is_writable():
                raise
            self._lose(entry, error)

    def _lose(self, entry: Entry, error: Exception) -> None:
        for job in [job for job in self.running if job.entry is entry]:
            job.kill(one_line(error))
            self.running.remove(job)
            self.seats.append(job.seat or {})
        self.elsewhere.pop(entry.name, None)
        if self.cache:
            self.cache.remove(entry.name)
        self.ledger.fail(entry, error)

    def close(self) -> None:
        """Ends what runs, gives back every claim and writes the summary; also after an error."""
        jobs = [*self.running, *self.ready]
        for job in self.running:
            job.running.stop("interrupted")
        try:
            self._await_end()
        finally:
            for job in self.running:
                job.kill("interrupted")
            # The first error is the one to report; a disk that is full must not keep the rest from being done.
            for job in jobs:
                with suppress(OSError):
                    self._give_back(job)
            with suppress(OSError):
                self.claims.release_all()
            if self.cache:
                self.cache.close()
            self.ledger.summarise_now()

    def _await_end(self) -> None:
        deadline, asked = time.monotonic() + GRACE_S, self.interrupts.count
        while any(job.child and job.child.process.poll() is None for job in self.running):
            if time.monotonic() > deadline or self.interrupts.count > asked:
                return
            time.sleep(_TICK_S / 4)

    def _wants_more(self) -> bool:
        """With a cache one slide more than can run is copied ahead for every seat."""
        busy = len(self.running) + len(self.ready)
        if self.cache is None:
            return bool(self.seats) and not self.ready
        return busy < 2 * self.options.at_once and self.cache.has_room(self.pending[0].slide)

    def _consider(self, entry: Entry) -> None:
        """Claims the slide and decides whether anything is to be done."""
        if owner := self.claims.take(entry.name):
            if entry.name not in self.elsewhere:
                self.watcher.note(f"{entry.name}: {owner} converts it")
            self.elsewhere[entry.name] = entry
            return
        self.elsewhere.pop(entry.name, None)
        self._mention_locks()
        generator = self.generators[entry.settings.generator.name]
        if isinstance(generator, GeneratorError):
            raise generator
        # Read under the claim: another batch may have just finished it.
        record = self.records.read(entry.name)
        recipe = make_recipe(entry.slide, entry.settings, generator)
        output = entry.output(self.folder)
        decision = decide(
            output, record, recipe, retry_failed=self.options.retry_failed, overwrite=self.options.overwrite
        )
        record = record or transitions.fresh(entry, self.folder)
        match decision.action:
            case "keep":
                if decision.why:
                    self.watcher.note(f"{entry.name}: {decision.why}")
                self.ledger.settle(entry, transitions.described(record, output), news=False)
            case "leave":
                self.ledger.settle(entry, record, news=False)
            case "adopt":
                keep_thumbnail(output, self.records.path(entry.name, ".jpg"))
                self.ledger.settle(entry, transitions.finished(record, output))
            case "refuse":
                self.ledger.settle(entry, transitions.failed(record, Ending(False, decision.why)))
            case "convert":
                self.ready.append(Job(entry, record, recipe, decision, self._source(entry)))

    def _source(self, entry: Entry) -> Future[Path]:
        if self.cache:
            return self.cache.fetch(entry.name, entry.slide)
        own: Future[Path] = Future()
        own.set_result(entry.slide)
        return own

    def _start(self, job: Job) -> None:
        entry, decision = job.entry, job.decision
        job.record = transitions.begun(job.record, entry, job.recipe, decision)
        settings = with_threads(entry.settings, self.options.at_once)
        command = self.command(job.source.result(), entry.output(self.folder), settings, decision.overwrite)
        self.records.write(entry.name, job.record)
        log, output = self.records.path(entry.name, ".log"), entry.output(self.folder)
        job.start(command, log, self.seats[0], output, self.options.limits)
        job.seat = self.seats.pop(0)
        self.running.append(job)
        self.watcher.started(entry, decision.why)

    def _watch(self, job: Job) -> None:
        if ending := job.running.ending():
            self._finish(job, ending)
        elif line := job.watch():
            self.watcher.said(job.entry, line)

    def _finish(self, job: Job, ending: Ending) -> None:
        entry, record = job.entry, transitions.after(job.record, job.running.seconds)
        self.running.remove(job)
        self.seats.append(job.seat or {})
        if ending.ok:
            record = transitions.finished(record, entry.output(self.folder))
            keep_thumbnail(entry.output(self.folder), self.records.path(entry.name, ".jpg"))
        else:
            # The user knows the slide by its own path, not by that of a copy in the cache.
            reason = ending.reason.replace(str(job.source.result()), str(entry.slide))
            record = (
                transitions.failed(record, Ending(False, reason, ending.retry))
                if ending.alone
                else transitions.interrupted(record, reason)
            )
        if self.cache:
            self.cache.remove(entry.name)
        self.ledger.settle(entry, record)
        if not ending.alone:
            raise ClusterError(ending.reason)

    def _give_back(self, job: Job) -> None:
        if job.child:
            record = transitions.after(job.record, job.child.seconds)
            done = job.child.process.returncode == 0
            output = job.entry.output(self.folder)
            record = transitions.finished(record, output) if done else transitions.interrupted(record)
            self.records.write(job.entry.name, record)
        self.claims.release(job.entry.name)

    def _beat(self) -> None:
        if time.monotonic() - self.beaten < min(BEAT_S, self.options.stale_after_s / 3):
            return
        self.beaten = time.monotonic()
        for name in self.claims.beat():
            # This process was asleep for so long that another took it for dead.
            for job in [job for job in self.running if job.entry.name == name]:
                job.kill("another batch has taken over")
                self.running.remove(job)
                self.seats.append(job.seat or {})
                self.elsewhere[name] = job.entry
            for job in [job for job in self.ready if job.entry.name == name]:
                self.ready.remove(job)
                self.elsewhere[name] = job.entry
            if self.cache:
                self.cache.remove(name)
            self.watcher.note(f"{name}: another batch has taken it over")

    def _ask_others(self) -> None:
        """Looks whether a slide that another batch had claimed is free: finished, or its owner dead."""
        if not self.elsewhere or not self.seats or self.ready or time.monotonic() - self.asked < _OTHERS_S:
            return
        self.asked = time.monotonic()
        for entry in list(self.elsewhere.values()):
            if self.seats and not self.ready:
                self._with(entry, partial(self._consider, entry))

    def _mention_locks(self) -> None:
        if not self.claims.locks and not self.mentioned:
            self.mentioned = True
            self.watcher.note(
                f"{self.folder}: this file system has no file locks; batches that run at the same time on this folder "
                "may both convert a slide that a killed batch has left"
            )
