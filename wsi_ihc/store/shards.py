"""A shard: what one block leaves behind, in one file, as zarr's sharding codec lays it out.

The parts come first, each with the CRC-32C of its bytes after it. Then an index, for every part its offset and its
length as little-endian numbers of 64 bits, both all ones where there is none. Then the CRC-32C of the index.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

import google_crc32c
import numpy as np

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
