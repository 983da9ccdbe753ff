"""Copies slides from slow storage to a fast local disk before they are converted, and removes the copies afterwards."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from wsi_ihc.batch.claims import birth, machine
from wsi_ihc.errors import StorageError
from wsi_ihc.machine.regular_files import read_regular
from wsi_ihc.slides.files import slide_files

logger = logging.getLogger(__name__)

_PREFIX = "wsi-ihc-cache-"
_OWNER = "owner"
_CHUNK_BYTES = 8 << 20


@dataclass
class Cache:
    """Copies in ``folder``, made one after the other by a thread, of at most ``limit_bytes`` together."""

    folder: Path
    limit_bytes: int
    _used: int = 0
    _sizes: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closing: threading.Event = field(default_factory=threading.Event)
    _copier: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "wsi-ihc-prefetch"))

    @classmethod
    def open(cls, parent: Path, limit_bytes: int | None) -> Cache:
        """Makes a folder of this process in ``parent``, and removes those of processes that have ended.

        Without a limit, half of what is free.

        Raises:
            StorageError: ``parent`` cannot be written.
        """
        try:
            parent.mkdir(parents=True, exist_ok=True)
            _remove_orphans(parent)
            # A name that cannot be known before: nobody can put a link there.
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
            (folder / _OWNER).write_text(f"{machine()}\n{os.getpid()}\n{birth(os.getpid())}\n")
            return cls(folder, limit_bytes or shutil.disk_usage(parent).free // 2)
        except OSError as error:
            raise StorageError(f"{parent}: the cache cannot be written ({error.strerror})") from None

    def has_room(self, slide: Path) -> bool:
        """Whether a copy fits now. A slide larger than the whole cache never waits: it is read where it is."""
        size = source_bytes(slide)
        return self._used + size <= self.limit_bytes or size > self.limit_bytes

    def fetch(self, name: str, slide: Path) -> Future[Path]:
        """Begins to copy; the result is where to read the slide: its own place when it cannot be copied."""
        size = source_bytes(slide)
        if size > self.limit_bytes or not slide.exists():
            done: Future[Path] = Future()
            done.set_result(slide)
            return done
        with self._lock:
            self._used += size
            self._sizes[name] = size
        return self._copier.submit(self._copy, name, slide)

    def remove(self, name: str) -> None:
        shutil.rmtree(self.folder / name, ignore_errors=True)
        with self._lock:
            self._used -= self._sizes.pop(name, 0)

    def close(self) -> None:
        self._closing.set()
        self._copier.shutdown(cancel_futures=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _copy(self, name: str, slide: Path) -> Path:
        # The file keeps its name: it is in the provenance, and a run that was cut off knows its slide by it.
        folder = self.folder / name
        try:
            for file in slide_files(slide):
                copied = folder / file.relative_to(slide.parent)
                copied.parent.mkdir(parents=True, exist_ok=True)
                self._copy_file(file, copied)
        except OSError as error:
            if not self._closing.is_set():
                logger.warning("%s: read where it is, it cannot be copied to the cache (%s)", slide, error)
            shutil.rmtree(folder, ignore_errors=True)
            return slide
        return folder / slide.name

    def _copy_file(self, source: str | Path, target: str | Path) -> None:
        with open(source, "rb") as reading, open(target, "wb") as writing:
            while chunk := reading.read(_CHUNK_BYTES):
                if self._closing.is_set():
                    raise InterruptedError(errno.EINTR, "the run ends")
                writing.write(chunk)


def source_bytes(slide: Path) -> int:
    """Bytes of all files that belong to the slide; 0 when it is missing or cannot be looked at."""
    try:
        return sum(file.stat().st_size for file in slide_files(slide) if file.is_file())
    except (OSError, ValueError):
        return 0


def _remove_orphans(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            where, process, born = read_regular(folder / _OWNER).decode().split()
        except (OSError, ValueError):
            continue
        if where == machine() and birth(int(process)) != born:
            shutil.rmtree(folder, ignore_errors=True)
