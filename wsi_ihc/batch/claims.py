"""Claims: which process converts which slide, so that batches on one folder share it and none waits for a dead one.

A claim names process and host. On the same machine the owner is looked up: it lives when its process id does, with the
same start. From another machine its heartbeat is watched: a number in the claim that must change. Only the watcher's
own monotonic clock decides, so clocks that differ, or are set back, do no harm.

A claim is a file that only one process can create, on every file system. A claim of a dead owner is removed and made
again under a lock (flock). Where the file system has no locks the promise is weaker: two batches that find the same
dead owner within the same moment may both take its slide. Then the later one wins the claim, the other one notices at
its next heartbeat and ends its child; the output is whole in any case, because it is named only when it is complete.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path

import psutil

from wsi_ihc.batch.records import write_whole
from wsi_ihc.errors import StorageError
from wsi_ihc.machine.regular_files import open_to_append, read_regular

STALE_AFTER_S = 300.0
"""Without a heartbeat for so long, an owner on another machine is taken for dead."""
BEAT_S = 20.0
_LOCK_S = 10.0


@dataclass(frozen=True)
class Claim:
    """What a lock file says."""

    token: str
    machine: str
    host: str
    process: int
    born: str
    beat: int = 0

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


@dataclass
class Claims:
    """The claims of this process in ``folder``, and its view of others'."""

    folder: Path
    stale_after_s: float = STALE_AFTER_S
    clock: Callable[[], float] = time.monotonic
    locks: bool = True
    """Whether the file system had a lock for the last change of a claim."""
    _held: dict[str, Claim] = field(default_factory=dict)
    _watched: dict[str, tuple[Claim | None, float]] = field(default_factory=dict)

    def take(self, name: str) -> Claim | None:
        """Claims the slide ``name``. None means that it is ours now; else the living owner is returned.

        Raises:
            StorageError: the folder cannot be written.
        """
        path = self._path(name)
        with self._guard():
            if os.path.lexists(path):
                other = _read(path)
                if not self._is_dead(name, other):
                    return other or Claim("", "", "an unknown host", 0, "")
                path.unlink(missing_ok=True)
            own = Claim(uuid.uuid4().hex, machine(), socket.gethostname(), os.getpid(), birth(os.getpid()) or "")
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                return _read(path) or own
            except OSError as error:
                raise StorageError(f"{path}: cannot be written ({error.strerror})") from None
            with os.fdopen(descriptor, "w") as stream:
                stream.write(json.dumps(asdict(own)))
        self._held[name] = own
        self._watched.pop(name, None)
        return None

    def beat(self) -> list[str]:
        """Shows that this process lives; returns the names whose claim somebody else has taken over."""
        lost = []
        with self._guard():
            for name, own in list(self._held.items()):
                seen = _read(self._path(name))
                if seen is None or seen.token != own.token:
                    del self._held[name]
                    lost.append(name)
                else:
                    self._held[name] = replace(own, beat=own.beat + 1)
                    write_whole(self._path(name), json.dumps(asdict(self._held[name])))
        return lost

    def release(self, name: str) -> None:
        """Gives the slide up; one that was lost to somebody else stays theirs."""
        own = self._held.pop(name, None)
        if own is None:
            return
        with self._guard():
            seen = _read(self._path(name))
            if seen and seen.token == own.token:
                self._path(name).unlink(missing_ok=True)

    def release_all(self) -> None:
        """Gives up whatever is still held."""
        for name in list(self._held):
            self.release(name)

    def owner(self, name: str) -> Claim | None:
        """Who is at work on ``name``, for all that can be told at once: an owner on this machine is known to live."""
        claim = _read(self._path(name))
        return claim if claim and _lives_here(claim) is not False else None

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.lock"

    def _is_dead(self, name: str, claim: Claim | None) -> bool:
        if claim and (alive := _lives_here(claim)) is not None:
            return not alive
        now = self.clock()
        seen, since = self._watched.get(name, (None, now))
        if name not in self._watched or seen != claim:
            self._watched[name] = (claim, now)
            return False
        return now - since > self.stale_after_s

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """One change of claims at a time, as far as the file system has locks; see the module's text where not."""
        try:
            handle = open_to_append(self.folder / ".claims")
        except OSError as error:
            raise StorageError(f"{self.folder}: cannot be written ({error.strerror})") from None
        try:
            self.locks = _locked(handle)
            yield
        finally:
            os.close(handle)


def _locked(handle: int) -> bool:
    """Whether the lock was got. An owner that was stopped in the middle may hold it for ever: it is not waited for."""
    deadline = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        except OSError:  # the file system has none
            return False


@cache
def machine() -> str:
    """Names a set of process ids: host, boot and, in a container, its own space of ids."""
    boot = space = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = os.readlink("/proc/self/ns/pid")
    return f"{socket.gethostname()}/{boot}/{space}"


def birth(process: int) -> str | None:
    """When the process began, in a form that no change of the clock touches; None when there is no such process."""
    try:
        # In ticks since boot; the name before it may hold blanks and brackets.
        state, *rest = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else rest[18]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        return f"{psutil.Process(process).create_time():.0f}"
    except psutil.Error:
        return None


def _lives_here(claim: Claim) -> bool | None:
    """None when it was made on another machine."""
    return birth(claim.process) == claim.born if claim.machine == machine() else None


def _read(path: Path) -> Claim | None:
    try:
        return Claim(**json.loads(read_regular(path)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
