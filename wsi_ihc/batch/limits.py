"""Bounds of one conversion: its time, its time without progress and its memory, so that no slide costs a night."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from wsi_ihc.output.names import OutputName

STALL_S = 30 * 60.0
"""A conversion says something every half minute while it stains, and writes and checks a large output in minutes."""
_MEMORY_SHARE = 0.9
_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_LOOKS_PER_LIMIT = 20
_LONGEST_LOOK_S = 15.0


@dataclass(frozen=True)
class Limits:
    """For one slide; None is without a limit."""

    timeout_s: float | None = None
    stall_s: float | None = STALL_S
    """Without a line in the log, and without a change of the output and its store."""
    memory_bytes: int | None = None
    """Of the process and those that it starts, without what they share with others."""


@dataclass
class Vigil:
    """Watches the process of one conversion."""

    process: int
    log: Path
    output: Path
    limits: Limits
    clock: Callable[[], float] = time.monotonic
    _started: float = field(init=False)
    _moved: float = field(init=False)
    _looked: float = field(init=False)
    _trace: tuple[object, ...] = ()

    def __post_init__(self) -> None:
        self._started = self._moved = self._looked = self.clock()

    def over_time(self) -> str:
        """Why the process must end by now; empty while it need not."""
        now, limits = self.clock(), self.limits
        if limits.timeout_s and now - self._started > limits.timeout_s:
            minutes = limits.timeout_s / 60
            return f"took longer than {minutes:g} minutes; continue it with --retry-failed and more --timeout"
        if not limits.stall_s:
            return ""
        if now - self._looked > min(_LONGEST_LOOK_S, limits.stall_s / _LOOKS_PER_LIMIT):
            self._looked = now
            before, self._trace = self._trace, _trace(self.log, self.output)
            if self._trace != before:
                self._moved = now
        if now - self._moved > limits.stall_s:
            minutes = limits.stall_s / 60
            return (
                f"no progress for {minutes:g} minutes; try it again with --retry-failed, and more --stall if it is slow"
            )
        return ""

    def over_memory(self) -> str:
        """Why the process must end at once; empty while it need not."""
        bound = self.limits.memory_bytes
        if bound is None or (used := memory_of(self.process)) <= bound:
            return ""
        return (
            f"took {used / 1e9:.1f} GB of memory, more than the {bound / 1e9:.1f} GB that one slide may have; "
            "try it again with --retry-failed and fewer --jobs or more --slide-memory"
        )


def memory_of(process: int) -> int:
    """Bytes that the process and its descendants hold for themselves; 0 when it has ended."""
    total = 0
    with suppress(psutil.Error):
        parent = psutil.Process(process)
        for each in (parent, *parent.children(recursive=True)):
            with suppress(psutil.Error):
                held = each.memory_info()
                total += held.rss - getattr(held, "shared", 0)
    return total


def default_memory(at_once: int) -> int:
    """Nine tenths of the memory that this machine or its container has, divided among slides that run at a time."""
    total = psutil.virtual_memory().total
    for path in _CGROUP:
        with suppress(OSError, ValueError):
            total = min(total, int(path.read_text()))
    return int(total * _MEMORY_SHARE / at_once)


def _trace(log: Path, output: Path) -> tuple[object, ...]:
    """What changes while a conversion gets on: its log, its store, and the output in the making."""
    found: list[object] = []
    with suppress(OSError):
        found.append(log.lstat().st_size)
    with suppress(OSError), os.scandir(output.parent) as entries:
        for entry in entries:
            if output.name in entry.name:
                with suppress(OSError):
                    facts = entry.stat(follow_symlinks=False)
                    found.append((entry.name, facts.st_size, facts.st_mtime_ns))
    store = OutputName(output).store
    for folder in (store, store / "blocks"):
        with suppress(OSError):
            found.append(folder.stat().st_mtime_ns)
    return tuple(sorted(found, key=str))
