"""A shard: what one block leaves behind, or one coarse level, in one file, as zarr's sharding codec lays it out.

The parts come first, each with the CRC-32C of its bytes after it. Then an index, for every part its offset and its
length as little-endian numbers of 64 bits, both all ones where there is none. Then the CRC-32C of the index.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

import google_crc32c
import numpy as np

from wsi_ihc.conversion.store.files import new_file, write_at

_ABSENT = 2**64 - 1
_CHECKSUM_BYTES = 4


def pack_shard(parts: Sequence[bytes | None]) -> bytes:
    """The file's bytes; None is a part that lies beyond the plane."""
    index = np.full((len(parts), 2), _ABSENT, "<u8")
    position = 0
    checked = [None if part is None else with_checksum(part) for part in parts]
    for number, part in enumerate(checked):
        if part is not None:
            index[number] = position, len(part)
            position += len(part)
    return b"".join([*(part for part in checked if part is not None), with_checksum(index.tobytes())])


def read_from_shard(descriptor: int, count: int, numbers: Iterable[int]) -> Iterator[bytes]:
    """The parts of these ``numbers`` from an open shard of ``count``; empty where one is damaged or absent."""
    length = 16 * count + _CHECKSUM_BYTES
    size = os.fstat(descriptor).st_size
    table = without_checksum(os.pread(descriptor, length, size - length)) if size >= length else None
    index = np.frombuffer(table, "<u8").reshape(count, 2) if table is not None else np.full((count, 2), _ABSENT, "<u8")
    for number in numbers:
        offset, extent = (int(value) for value in index[number])
        if offset + extent <= size - length:
            yield without_checksum(os.pread(descriptor, extent, offset)) or b""
        else:
            yield b""


class ShardWriter:
    """A shard whose parts come one by one, in any order and from any thread.

    Memory bound: the index, 16 bytes a part.
    """

    def __init__(self, descriptor: int, count: int) -> None:
        self._descriptor = descriptor
        self._index = np.full((count, 2), _ABSENT, "<u8")
        self._end = 0
        self._lock = Lock()

    def write(self, number: int, part: bytes) -> None:
        data = with_checksum(part)
        with self._lock:
            start, self._end = self._end, self._end + len(data)
            self._index[number] = start, len(data)
        write_at(self._descriptor, data, start)

    def finish(self) -> None:
        write_at(self._descriptor, with_checksum(self._index.tobytes()), self._end)


@contextmanager
def new_shard(key: str, count: int, *, folder: int) -> Generator[ShardWriter]:
    """The file ``key`` below the open ``folder``. Its name appears when the context ends without an error."""
    with new_file(key, folder=folder) as descriptor:
        writer = ShardWriter(descriptor, count)
        yield writer
        writer.finish()


def with_checksum(data: bytes) -> bytes:
    """``data`` as zarr's codec crc32c stores it."""
    return data + _checksum(data)


def without_checksum(data: bytes) -> bytes | None:
    """What ``with_checksum`` was given; None when it was damaged since."""
    content = data[:-_CHECKSUM_BYTES]
    return content if _checksum(content) == data[-_CHECKSUM_BYTES:] else None


def _checksum(data: bytes) -> bytes:
    value: int = google_crc32c.value(data)
    return value.to_bytes(_CHECKSUM_BYTES, "little")
