"""Atomic writes: a file is complete or absent, and no planted link or pipe is written through."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from wsi_ihc.errors import StorageError

_NAME_BYTES = 255
"""The longest name of a file on the usual file systems."""


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """The file appears or changes at once, and survives a power cut; its folder is made where it is missing.

    Raises:
        StorageError: it cannot be written; what was under the name is still there.
    """
    with atomic_file(path) as stream:
        stream.write(content)


@contextmanager
def atomic_file(path: Path) -> Generator[BinaryIO]:
    """A stream whose bytes get the name ``path`` when the block under ``with`` ends without an error.

    The bytes are on the disk before the name is. A link of that name is replaced, not followed.

    Raises:
        StorageError: it cannot be written; what was under the name is still there.
    """
    part = path.with_name(_temporary_name(path.name))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(new_descriptor(part), "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error})") from None


def new_descriptor(path: Path) -> int:
    """Creates the file ``path`` for writing; refuses anything that has the name, a dangling link too.

    Raises:
        FileExistsError: the name is taken.
        OSError: the system refuses.
    """
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def remove(path: Path) -> None:
    """Removes a file, a link, or a folder with what is in it; where nothing is, nothing happens.

    Raises:
        OSError: the system refuses.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _temporary_name(name: str) -> str:
    """A hidden name that no other process uses; shortened where the full name would be too long for a file system."""
    unique = f".{uuid.uuid4().hex}.part"
    kept = os.fsencode(name)[: _NAME_BYTES - len(unique) - 1]
    return f".{kept.decode(errors='ignore')}{unique}"


def give_name(part: Path, name: Path, *, replace_folder: bool = False) -> None:
    """The complete file or folder ``part`` becomes ``name``, and the name survives a power cut.

    An older file or an empty folder of that name is replaced, and with ``replace_folder`` a folder with content too.

    Raises:
        StorageError: the disk refuses.
    """
    try:
        if replace_folder and name.is_dir():
            shutil.rmtree(name)
        part.replace(name)
        sync(name.parent)
    except OSError as error:
        raise StorageError(f"{name}: cannot be given its name ({error.strerror or error})") from None


def sync(path: Path) -> None:
    """Waits until the file or folder is on the disk.

    Raises:
        OSError: the disk refuses.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
