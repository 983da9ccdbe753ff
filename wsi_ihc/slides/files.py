"""Whether a slide on disk is still the one that a store was begun with, without reading all of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

_SAMPLE_BYTES = 1 << 16


def source_digest(path: Path) -> str:
    """SHA-256 over names, lengths and three samples (begin, middle, end) of every file that makes the slide.

    Times are left out: a slide that was copied is the same slide. A MIRAX slide is its index file and those in the
    folder of the same name; a DICOM slide given as a folder is all that lies in it, given as a file that file alone.
    """
    digest = hashlib.sha256()
    for file in _files(path):
        length = file.stat().st_size
        digest.update(f"{file.name}\0{length}\0".encode())
        with file.open("rb") as handle:
            for position in sorted({0, max(0, length // 2), max(0, length - _SAMPLE_BYTES)}):
                handle.seek(position)
                digest.update(handle.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(file for file in path.rglob("*") if file.is_file())
        return
    yield path
    companion = path.with_suffix("")
    if path.suffix.lower() == ".mrxs" and companion.is_dir():
        yield from sorted(file for file in companion.iterdir() if file.is_file())
