"""Size and digest of an output, be it a file or a folder."""

from __future__ import annotations

import hashlib
from pathlib import Path


def content_bytes(output: Path) -> int:
    """Bytes of the file, or of all files in the folder.

    Raises:
        OSError: it cannot be read.
    """
    return sum(file.stat().st_size for file in _files(output))


def content_sha256(output: Path) -> str:
    """SHA-256 as hex digits: of the file; of a folder, that of the names of its files, each with its own SHA-256.

    Raises:
        OSError: it cannot be read.
    """
    if not output.is_dir():
        return _sha256(output)
    whole = hashlib.sha256()
    for file in _files(output):
        whole.update(f"{file.relative_to(output).as_posix()}\0{_sha256(file)}\n".encode())
    return whole.hexdigest()


def _files(output: Path) -> list[Path]:
    return sorted(path for path in output.rglob("*") if path.is_file()) if output.is_dir() else [output]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
