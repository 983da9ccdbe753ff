"""The files that make a slide, and whether they are still the same, without reading all of them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from wsi_ihc.errors import SlideError
from wsi_ihc.slides.identify import is_dicom

_SAMPLE_BYTES = 1 << 16
_INDEX_BYTES = 1 << 20
"""Bytes that are read of a VMS or VMU file, which is a text of a few lines."""


@dataclass(frozen=True, slots=True)
class FileState:
    """Facts about a file from the file system. They change when the file is written to or replaced."""

    name: str
    size: int
    inode: int
    modified_ns: int
    """Time of the last change, nanoseconds since 1970."""


def slide_files(path: Path) -> tuple[Path, ...]:
    """Every file that makes the slide ``path``: the named one first, then the others by name.

    A MIRAX slide is its index file and the files in the folder of the same name. A Hamamatsu VMS or VMU slide is its
    index and the pictures that the index lists. A DICOM slide, given as a folder or as one of its files, is all files
    of its series. A folder that is not one slide gives every file in it. Missing files are left out.

    Raises:
        OSError: a folder cannot be listed.
    """
    match path.suffix.lower():
        case _ if path.is_dir() or is_dicom(path):
            return _dicom(path)
        case ".mrxs":
            folder = path.with_suffix("")
            parts = sorted(file for file in folder.iterdir() if file.is_file()) if folder.is_dir() else []
            return (path, *parts)
        case ".vms" | ".vmu" if path.is_file():
            return (path, *sorted(_listed(path)))
        case _:
            return (path,)


def source_digest(path: Path) -> str:
    """SHA-256 over names, lengths and three samples (begin, middle, end) of every file of the slide, as hex digits.

    Times are left out: a slide that was copied is the same slide.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for file in slide_files(path):
        length = file.stat().st_size
        digest.update(f"{file.name}\0{length}\0".encode("utf-8", "surrogateescape"))
        with file.open("rb") as handle:
            for position in sorted({0, max(0, length // 2), max(0, length - _SAMPLE_BYTES)}):
                handle.seek(position)
                digest.update(handle.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def file_states(path: Path) -> tuple[FileState, ...]:
    """The state of every file of the slide. Two equal results mean that no file changed in between.

    Raises:
        OSError: a file is missing.
    """
    return tuple(
        FileState(file.name, facts.st_size, facts.st_ino, facts.st_mtime_ns)
        for file, facts in ((file, file.stat()) for file in slide_files(path))
    )


def _dicom(path: Path) -> tuple[Path, ...]:
    from wsi_ihc.slides.dicom_series import series_files  # pydicom takes time to import, and few slides are DICOM

    try:
        return tuple(series_files(path))
    except SlideError:
        return tuple(sorted(file for file in path.rglob("*") if file.is_file())) if path.is_dir() else (path,)


def _listed(index: Path) -> set[Path]:
    """The pictures that a VMS or VMU index names and that exist in the folder of the index."""
    with index.open("rb") as stream:
        text = stream.read(_INDEX_BYTES).decode("utf-8", "replace")
    names = re.findall(r"^(?:ImageFile|MapFile|OptimisationFile|MacroImage)[^=\n]*=([^\r\n]+)", text, re.MULTILINE)
    files = {index.parent / name.strip() for name in names if Path(name.strip()).name == name.strip()}
    return {file for file in files if file.is_file()}
