"""The run over a cohort: claims slides, starts a child for each, watches, records, and comes to an end by itself."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from wsi_ihc.batch import transitions
from wsi_ihc.batch.children import Child, ConvertCommand, Ending, convert_command, generator_fingerprint
from wsi_ihc.batch.claims import BEAT_S, Claims
from wsi_ihc.batch.cohort import Entry
from wsi_ihc.batch.decisions import Decision, decide
from wsi_ihc.batch.interrupts import Interrupts, noted_interrupts
from wsi_ihc.batch.options import BatchOptions, with_threads
from wsi_ihc.batch.prefetch import Cache
from wsi_ihc.batch.recipe import Recipe, make_recipe
from wsi_ihc.batch.records import Records, SlideRecord
from wsi_ihc.batch.summary import write_summary
from wsi_ihc.batch.thumbnails import keep_thumbnail
from wsi_ihc.batch.watcher import Watcher
from wsi_ihc.errors import ClusterError, StorageError

_TICK_S = 0.2
_SAID_S = 1.0
_OTHERS_S = 1.0
_SUMMARY_S = 30.0
_GRACE_S = 20.0
"""For a child that was asked to end, before it is killed."""


@dataclass
class _Job:
    """A slide that is claimed and will be, or is being, converted."""

    entry: Entry
    record: SlideRecord
    recipe: Recipe
    decision: Decision
    source: Future[Path]
    child: Child | None = None
    seat: dict[str, str] = field(default_factory=dict)
    line: str = ""
    listened: float = 0.0


def run_batch(
    entries: Sequence[Entry],
    folder: Path,
    options: BatchOptions,
    watcher: Watcher,
    *,
    command: ConvertCommand = convert_command,
    fingerprint: Callable[[str], str] = generator_fingerprint,
) -> dict[str, SlideRecord]:
    """Attempts every slide, each in a process of its own, and returns what became of each by its name.

    Slides that another batch has claimed are waited for. When interrupted the children are ended, and what they have
    finished is kept.

    Raises:
        SettingsError, GeneratorError: before the first slide.
        StorageError: records cannot be written any more; children are ended.
        ClusterError: the dask cluster is lost, which every slide needs; slides that are not done wait.
        KeyboardInterrupt: after the children have ended.
    """
    seats = options.seats()
    generators = {name: fingerprint(name) for name in {entry.settings.generator.name for entry in entries}}
    records = Records(folder)
    for entry in entries:
        if records.read(entry.name) is None:
            records.write(entry.name, transitions.fresh(entry, folder))
    cache = Cache.open(options.cache, options.cache_bytes) if options.cache else None
    run = _Run(
        folder, options, watcher, command, generators, records,
        Claims(records.folder, options.stale_after_s), cache, seats, deque(entries),
    )  # fmt: skip
    watcher.begin(len(entries))
    with noted_interrupts() as run.interrupts:
        try:
            run.work()
        finally:
            run.close()
    return run.results


@dataclass
class _Run:
    folder: Path
    options: BatchOptions
    watcher: Watcher
    command: ConvertCommand
    generators: Mapping[str, str]
    records: Records
    claims: Claims
    cache: Cache | None
    seats: list[dict[str, str]]
    pending: deque[Entry]
    results: dict[str, SlideRecord] = field(default_factory=dict)
    ready: deque[_Job] = field(default_factory=deque)
    running: list[_Job] = field(default_factory=list)
    elsewhere: dict[str, Entry] = field(default_factory=dict)
    beaten: float = field(default_factory=time.monotonic)
    interrupts: Interrupts = field(default_factory=Interrupts)
    asked: float = 0.0
    summarised: float = 0.0

    def work(self) -> None:
        while self.pending or self.ready or self.running or self.elsewhere:
            self.interrupts.check()
            self._beat()
            for job in list(self.running):
                self._watch(job)
            self._ask_others()
            while self.pending and self._wants_more():
                self._consider(self.pending.popleft())
                self.interrupts.check()
                self._beat()
            while self.seats and self.ready and self.ready[0].source.done():
                self._start(self.ready.popleft())
            self._summarise()
            if self.running or self.elsewhere or (self.ready and not self.ready[0].source.done()):
                time.sleep(_TICK_S)

    def close(self) -> None:
        """Ends what runs, gives back every claim and writes the summary; also after an error."""
        jobs = [*self.running, *self.ready]
        for job in self.running:
            assert job.child
            job.child.stop("interrupted")
        try:
            self._await_end()
        finally:
            for job in self.running:
                assert job.child
                job.child.stop("interrupted", signal.SIGKILL)
                job.child.process.wait()
            # The first trouble is the one to tell; a disk that is full must not keep us from the rest.
            with suppress(StorageError):
                for job in jobs:
                    self._give_back(job)
            with suppress(StorageError):
                self.claims.release_all()
            if self.cache:
                self.cache.close()
            with suppress(StorageError):
                write_summary(self.records)

    def _await_end(self) -> None:
        deadline, asked = time.monotonic() + _GRACE_S, self.interrupts.count
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
        """Claims the slide and finds out whether anything is to be done."""
        if owner := self.claims.take(entry.name):
            if entry.name not in self.elsewhere:
                self.watcher.note(f"{entry.name}: {owner} is at work on it")
            self.elsewhere[entry.name] = entry
            return
        self.elsewhere.pop(entry.name, None)
        # Read under the claim: another batch may have just finished it.
        record = self.records.read(entry.name)
        recipe = make_recipe(entry.slide, entry.settings, self.generators[entry.settings.generator.name])
        output = entry.output(self.folder)
        decision = decide(
            output, record, recipe, retry_failed=self.options.retry_failed, overwrite=self.options.overwrite
        )
        record = record or transitions.fresh(entry, self.folder)
        match decision.action:
            case "keep":
                if decision.why:
                    self.watcher.note(f"{entry.name}: {decision.why}")
                self._settle(entry, record, news=False)
            case "leave":
                self._settle(entry, record, news=False)
            case "adopt":
                keep_thumbnail(output, self.records.path(entry.name, ".jpg"))
                self._settle(entry, transitions.finished(record, output))
            case "refuse":
                self._settle(entry, transitions.failed(record, Ending(False, decision.why)))
            case "convert":
                self.ready.append(_Job(entry, record, recipe, decision, self._source(entry)))

    def _source(self, entry: Entry) -> Future[Path]:
        if self.cache:
            return self.cache.fetch(entry.name, entry.slide)
        own: Future[Path] = Future()
        own.set_result(entry.slide)
        return own

    def _start(self, job: _Job) -> None:
        entry, decision = job.entry, job.decision
        job.record = transitions.begun(job.record, entry, job.recipe, decision)
        settings = with_threads(entry.settings, self.options.at_once)
        command = self.command(job.source.result(), entry.output(self.folder), settings, decision.overwrite)
        self.records.write(entry.name, job.record)
        job.child = Child.start(command, self.records.path(entry.name, ".log"), self.seats[0], decision.why)
        job.seat = self.seats.pop(0)
        self.running.append(job)
        self.watcher.started(entry, decision.why)

    def _watch(self, job: _Job) -> None:
        child, limit = job.child, self.options.timeout_s
        assert child
        if ending := child.ending():
            self._finish(job, ending)
            return
        if limit and child.seconds > limit + _GRACE_S:
            child.stop("", signal.SIGKILL)
        elif limit and child.seconds > limit and not child.stopped:
            child.stop(f"took longer than {limit / 60:g} minutes; continue it with --retry-failed and more --timeout")
        if time.monotonic() - job.listened > _SAID_S:
            job.listened, before, job.line = time.monotonic(), job.line, child.said()
            if job.line != before:
                self.watcher.said(job.entry, job.line)

    def _finish(self, job: _Job, ending: Ending) -> None:
        assert job.child
        entry, record = job.entry, transitions.after(job.record, job.child.seconds)
        self.running.remove(job)
        self.seats.append(job.seat)
        if ending.ok:
            record = transitions.finished(record, entry.output(self.folder))
            keep_thumbnail(entry.output(self.folder), self.records.path(entry.name, ".jpg"))
        else:
            # A copy in the cache is no place that a person knows.
            reason = ending.reason.replace(str(job.source.result()), str(entry.slide))
            told = Ending(False, reason, ending.retry)
            record = transitions.failed(record, told) if ending.alone else transitions.interrupted(record, reason)
        if self.cache:
            self.cache.remove(entry.name)
        self._settle(entry, record)
        if not ending.alone:
            raise ClusterError(ending.reason)

    def _settle(self, entry: Entry, record: SlideRecord, *, news: bool = True) -> None:
        if news:
            self.records.write(entry.name, record)
        self.claims.release(entry.name)
        self.results[entry.name] = record
        self.watcher.ended(entry, record, news=news)

    def _give_back(self, job: _Job) -> None:
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
                assert job.child
                job.child.stop("another batch has taken over", signal.SIGKILL)
                job.child.process.wait()
                self.running.remove(job)
                self.seats.append(job.seat)
                self.elsewhere[name] = job.entry
            for job in [job for job in self.ready if job.entry.name == name]:
                self.ready.remove(job)
                self.elsewhere[name] = job.entry
            if self.cache:
                self.cache.remove(name)
            self.watcher.note(f"{name}: another batch has taken it over")

    def _ask_others(self) -> None:
        """Whether a slide that another batch had claimed is free: finished, or its owner dead."""
        if not self.elsewhere or not self.seats or self.ready or time.monotonic() - self.asked < _OTHERS_S:
            return
        self.asked = time.monotonic()
        for entry in list(self.elsewhere.values()):
            if self.seats and not self.ready:
                self._consider(entry)

    def _summarise(self) -> None:
        if time.monotonic() - self.summarised > _SUMMARY_S:
            write_summary(self.records)
            # A large cohort's page takes a while; it must not become what the batch does.
            self.summarised = time.monotonic()
