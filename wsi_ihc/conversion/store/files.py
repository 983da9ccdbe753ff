"""Files that are whole or absent, and the disk's troubles in words."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wsi_ihc.errors import StorageError

TEMPORARY = ".part-"
"""Start of the name of a file that is still being written."""


@contextmanager
def new_file(key: str, *, folder: int) -> Generator[int]:
    """A descriptor to write the file ``key`` below the open ``folder``.

    Its name appears when the context ends without an error, and never on part of it, also when the process is killed.
    """
    parent, name = os.path.split(key)
    temporary = os.path.join(parent, f"{TEMPORARY}{uuid.uuid4().hex}-{name}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder)
    try:
        try:
            yield descriptor
        finally:
            os.close(descriptor)
        os.replace(temporary, key, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def write_whole(key: str, data: bytes, *, folder: int) -> None:
    """Writes the file ``key`` below the open ``folder``, whole or not at all."""
    with new_file(key, folder=folder) as descriptor:
        write_at(descriptor, data, 0)


def write_at(descriptor: int, data: bytes, position: int) -> None:
    """All of ``data`` from that byte on; ``os.pwrite`` may write less."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, position)
        view, position = view[written:], position + written


def remove_temporary(folder: Path) -> None:
    """Removes what killed processes left behind; nobody else may be writing."""
    for entry in os.scandir(folder):
        if entry.name.startswith(TEMPORARY):
            os.unlink(entry.path)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns an error of the operating system into a StorageError of one line about the store at ``path``."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{path}: {_advice(error)}") from None


def _advice(error: OSError) -> str:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return "the disk is full; free some space and run the same command again, it continues"
        case errno.EROFS | errno.EACCES | errno.EPERM:
            return "cannot be written; check the permissions of the folder, then run the same command again"
        case errno.ENOENT | errno.ENOTDIR | errno.ESTALE | errno.ENODEV:
            return "the folder has vanished; reconnect the disk, or run the same command again to start afresh"
        case errno.EIO:
            return "the disk reports an error; check it, or choose another folder for the output"
        case _:
            return f"{error.strerror or error}; run the same command again, it continues"
