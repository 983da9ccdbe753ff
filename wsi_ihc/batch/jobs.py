"""A slide that a run has claimed: prepared, then converted by a child process that is watched."""

from __future__ import annotations

import signal
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from wsi_ihc.batch.children import Child
from wsi_ihc.batch.cohort import Entry
from wsi_ihc.batch.decisions import Decision
from wsi_ihc.batch.limits import Limits, Vigil
from wsi_ihc.batch.recipe import Recipe
from wsi_ihc.batch.records import SlideRecord

GRACE_S = 20.0
"""A child that was asked to end has this long before it is killed."""
_LOOK_S = 1.0


@dataclass
class Job:
    """One slide and, once it is started, its child."""

    entry: Entry
    record: SlideRecord
    recipe: Recipe
    decision: Decision
    source: Future[Path]
    """Where to read the slide: its own place, or a copy in the cache."""
    child: Child | None = None
    seat: dict[str, str] | None = None
    line: str = ""
    _vigil: Vigil | None = None
    _looked: float = field(default_factory=time.monotonic)

    def start(self, command: list[str], log: Path, seat: dict[str, str], output: Path, limits: Limits) -> None:
        """Starts the child.

        Raises:
            StorageError: its log cannot be written.
        """
        self.child = Child.start(command, log, seat, self.decision.why)
        self._vigil = Vigil(self.child.process.pid, log, output, limits)

    @property
    def running(self) -> Child:
        """The child of a job that is started."""
        assert self.child
        return self.child

    def watch(self) -> str:
        """Ends a child that breaks a limit; returns its last line where that is a new one, else nothing."""
        child = self.running
        if child.asked and time.monotonic() - child.asked > GRACE_S:
            child.stop("", signal.SIGKILL)
        elif self._vigil and not child.stopped and (why := self._vigil.over_time()):
            child.stop(why)
        if time.monotonic() - self._looked < _LOOK_S:
            return ""
        self._looked = time.monotonic()
        if self._vigil and not child.stopped and (why := self._vigil.over_memory()):
            child.stop(why, signal.SIGKILL)
        before, self.line = self.line, child.said()
        return self.line if self.line != before else ""

    def kill(self, why: str) -> None:
        """Ends the child at once and waits for its end."""
        if self.child:
            self.child.stop(why, signal.SIGKILL)
            self.child.process.wait()
