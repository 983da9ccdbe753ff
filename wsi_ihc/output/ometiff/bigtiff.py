"""Just enough BigTIFF to add the levels of a pyramid to the main chain as well.

QuPath, tifffile and libvips find reduced levels in the SubIFDs tag; OpenSlide and web viewers only along the chain of
main directories. A directory is about a kilobyte and points at the same tiles, so a second copy serves both.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_SUB_IFDS = 330
_ENTRY = struct.Struct("<HHQ8s")
_MAX_ENTRIES = 4096
_MAX_DIRECTORIES = 64


@dataclass(frozen=True, slots=True)
class Directory:
    """One image file directory: ``entries`` as they stand in the file, and where the ``next`` one is (0: none)."""

    offset: int
    entries: bytes
    next: int

    @property
    def next_position(self) -> int:
        """Offset of ``next`` in the file, bytes."""
        return self.offset + 8 + len(self.entries)


def read_chain(file: BinaryIO) -> list[Directory]:
    """The directories of the main chain.

    Raises:
        ValueError: not a little-endian BigTIFF, or its chain is broken.
    """
    file.seek(0)
    header = file.read(16)
    if header[:8] != b"II+\0\x08\0\0\0":
        raise ValueError("not a little-endian BigTIFF, which outputs of wsi-ihc are")
    chain = [_read_directory(file, int.from_bytes(header[8:], "little"))]
    while chain[-1].next:
        if len(chain) == _MAX_DIRECTORIES or any(chain[-1].next == seen.offset for seen in chain):
            raise ValueError("the chain of directories does not end")
        chain.append(_read_directory(file, chain[-1].next))
    return chain


def read_sub_directories(file: BinaryIO, directory: Directory) -> list[Directory]:
    """The directories that ``directory`` names in its SubIFDs tag.

    Raises:
        ValueError: they cannot be read.
    """
    for tag, _, count, value in _ENTRY.iter_unpack(directory.entries):
        if tag == _SUB_IFDS:
            if count > _MAX_DIRECTORIES:
                raise ValueError(f"{count} SubIFDs")
            if count > 1:
                file.seek(int.from_bytes(value, "little"))
                value = _read_exactly(file, 8 * count)
            return [_read_directory(file, offset) for (offset,) in struct.iter_unpack("<Q", value[: 8 * count])]
    return []


def link_levels(path: Path) -> None:
    """Appends copies of the SubIFDs of the first directory to the main chain of the BigTIFF at ``path``.

    The chain is extended last, in one write: a file cut before that is a valid pyramid without it.

    Raises:
        ValueError: the file is no BigTIFF, or has a chain of several directories already.
    """
    with path.open("r+b") as file:
        chain = read_chain(file)
        if len(chain) != 1:
            raise ValueError(f"the main chain has {len(chain)} directories already")
        levels = read_sub_directories(file, chain[0])
        if not levels:
            return
        start = file.seek(0, os.SEEK_END)
        start += file.write(bytes(-start % 8))
        position = start
        for level in levels:
            count = len(level.entries) // _ENTRY.size
            end = position + 8 + len(level.entries) + 8
            position_of_next = end + (-end % 8)
            follows = position_of_next if level is not levels[-1] else 0
            file.write(struct.pack("<Q", count) + level.entries + struct.pack("<Q", follows))
            file.write(bytes(position_of_next - end))
            position = position_of_next
        file.flush()
        file.seek(chain[0].next_position)
        file.write(struct.pack("<Q", start))


def _read_directory(file: BinaryIO, offset: int) -> Directory:
    file.seek(offset)
    (count,) = struct.unpack("<Q", _read_exactly(file, 8))
    if not 0 < count <= _MAX_ENTRIES:
        raise ValueError(f"a directory of {count} entries at byte {offset}")
    entries = _read_exactly(file, count * _ENTRY.size)
    (following,) = struct.unpack("<Q", _read_exactly(file, 8))
    return Directory(offset, entries, following)


def _read_exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise ValueError("the file ends inside a directory")
    return data
