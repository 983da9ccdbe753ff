"""A lock on a file name: one owner at a time, also where the file system has no locks."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from wsi_ihc.errors import StorageError

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_OWNER_BYTES = 512


class LockedError(Exception):
    """Another process owns the lock; ``owner`` says which, as far as it is known."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self.owner = owner


@contextmanager
def locked(path: Path) -> Generator[bool]:
    """Owns the lock file ``path`` until the block under ``with`` ends; yields whether the system guarantees it.

    The system frees the lock when its owner dies, however it dies. Where the file system has no locks (NFS without its
    lock service, some Lustre) the promise is weaker: the file names its owner, and a process of this host that is
    dead does not count. A process that died on another host does, until a user removes the file; and two processes
    that start in the same moment may both go on.

    Raises:
        LockedError: another process owns it.
        StorageError: the file cannot be written, or something else has its name: a link or a pipe is never followed.
    """
    descriptor = _opened(path)
    try:
        guaranteed = _take(path, descriptor)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        try:
            yield guaranteed
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        seen = "is a link" if error.errno == errno.ELOOP else f"cannot be written ({error.strerror})"
        raise StorageError(f"{path}: {seen}; remove it or choose another output name") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StorageError(f"{path}: is no file; remove it or choose another output name")
    return descriptor


def _take(path: Path, descriptor: int) -> bool:
    """Whether the system guarantees the lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockedError(_owner(descriptor) or "another process") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise StorageError(f"{path}: cannot be locked ({error.strerror}); check the disk") from None
        owner = _owner(descriptor)
        if owner and not _is_dead(owner):
            raise LockedError(f"{owner}, as {path} says (remove that file if the process has ended),") from None
        return False
    # An owner that has just finished may have removed the file after we opened it and before we locked it.
    if os.fstat(descriptor).st_nlink == 0:
        raise LockedError("another process")
    return True


def _owner(descriptor: int) -> str:
    return os.pread(descriptor, _OWNER_BYTES, 0).decode("utf-8", "replace").strip()


def _is_dead(owner: str) -> bool:
    """Whether ``process 12 on host`` names a process of this host that has ended."""
    match owner.split():
        case ["process", number, "on", host] if host == socket.gethostname() and number.isdigit():
            try:
                os.kill(int(number), 0)
            except ProcessLookupError:
                return True
            except (OSError, OverflowError):
                return False
    return False
