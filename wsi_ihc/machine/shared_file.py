"""A file that many threads read at once, each where it likes."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Lock

from wsi_ihc.errors import UnreadableSlideError


class SharedFile:
    """Bytes by their place. Thread-safe.

    The last one to let go of the object closes the file. Closed under a reading thread, its number could be another
    file's by the time that thread asks for bytes.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    def __del__(self) -> None:
        if hasattr(self, "_number"):
            os.close(self._number)

    def read(self, offset: int, count: int) -> bytes:
        """``count`` bytes from ``offset`` on, fewer where the file ends.

        Raises:
            UnreadableSlideError: the disk does not give them.
        """
        try:
            if hasattr(os, "pread"):  # needs no shared position, so threads do not wait for each other
                return os.pread(self._number, count, offset)
            with self._lock:
                os.lseek(self._number, offset, os.SEEK_SET)
                return os.read(self._number, count)
        except OSError as error:
            raise UnreadableSlideError(f"{self._path}: cannot be read any more ({error})") from error
