"""The encoded tiles that a block owns on one level, together in one file, as zarr's sharding codec lays them out.

The tiles come first, row by row, each with the CRC-32C of its bytes after it. Then an index, for every tile its offset
and its length as little-endian numbers of 64 bits, both all ones where there is no tile. Then the CRC-32C of the index.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import google_crc32c
import numpy as np

_ABSENT = 2**64 - 1
_CHECKSUM_BYTES = 4


def pack_shard(tiles: Sequence[bytes | None]) -> bytes:
    """The file's bytes; None is a tile that lies beyond the plane."""
    index = np.full((len(tiles), 2), _ABSENT, "<u8")
    position = 0
    checked = [None if tile is None else with_checksum(tile) for tile in tiles]
    for number, tile in enumerate(checked):
        if tile is not None:
            index[number] = position, len(tile)
            position += len(tile)
    return b"".join([*(tile for tile in checked if tile is not None), with_checksum(index.tobytes())])


def read_from_shard(descriptor: int, count: int, number: int) -> bytes:
    """Tile ``number`` of an open shard of ``count`` tiles; empty where it is damaged or absent."""
    length = 16 * count + _CHECKSUM_BYTES
    size = os.fstat(descriptor).st_size
    if size < length:
        return b""
    index = without_checksum(os.pread(descriptor, length, size - length))
    if index is None:
        return b""
    offset, extent = (int(value) for value in np.frombuffer(index, "<u8").reshape(count, 2)[number])
    if offset + extent > size - length:
        return b""
    return without_checksum(os.pread(descriptor, extent, offset)) or b""


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
