"""Files of our own under names that others can guess. A link, a pipe or a device under such a name is not ours.

Nothing here follows a link in the last part of a path, and nothing waits for the other end of a pipe.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_SAFE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


def read_regular(path: Path, limit: int = 64 << 20) -> bytes:
    """The content of a regular file of at most ``limit`` bytes.

    Raises:
        OSError: it is missing, is larger, or is a link, a pipe or anything else but a regular file.
    """
    descriptor = _opened(path, os.O_RDONLY)
    with os.fdopen(descriptor, "rb") as stream:
        if os.fstat(descriptor).st_size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
        return stream.read(limit + 1)[:limit]


def open_to_append(path: Path) -> int:
    """A descriptor that writes to the end of the regular file ``path``, which is made where it is missing.

    What is no regular file of its own, such as a link, is removed first; what a link names is left alone.

    Raises:
        OSError: it cannot be opened or removed.
    """
    for _ in range(2):
        try:
            return _opened(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO, errno.EMLINK):
                raise
            path.unlink(missing_ok=True)
    return _opened(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL)


def is_regular(path: Path) -> bool:
    """Whether a regular file lies there; a link to one is none."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _opened(path: Path, flags: int) -> int:
    descriptor = os.open(path, flags | _SAFE, 0o666)
    facts = os.fstat(descriptor)
    if stat.S_ISREG(facts.st_mode) and not (facts.st_nlink > 1 and flags & os.O_WRONLY):
        return descriptor
    os.close(descriptor)
    if facts.st_nlink > 1 and stat.S_ISREG(facts.st_mode):
        raise OSError(errno.EMLINK, "a second name of another file", str(path))
    raise OSError(errno.ENXIO, "no regular file", str(path))
