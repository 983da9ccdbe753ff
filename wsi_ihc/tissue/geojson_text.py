"""The JSON in a GeoJSON file, also in a .zip or .gz as QuPath exports it, up to a bound."""

from __future__ import annotations

import gzip
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from wsi_ihc.errors import SettingsError

MOST_BYTES = 64_000_000
"""Most bytes of text. Outlines of tissue take a megabyte; parsed JSON takes up to ten times the size of its text."""


def read_json(path: Path) -> Any:
    """The document in ``path``.

    Raises:
        SettingsError: the file cannot be read, is larger than ``MOST_BYTES`` once unpacked, or holds no JSON.
    """
    try:
        with path.open("rb") as stream:
            text = _unpacked(stream, path)
    except OSError as error:
        reason = error.strerror or "damaged archive"
        raise SettingsError(
            f"{path}: cannot read the tissue outlines ({reason}); give auto, none or a GeoJSON file"
        ) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError):
        raise SettingsError(f"{path}: a damaged archive; export the outlines again") from None
    if len(text) > MOST_BYTES:
        raise SettingsError(
            f"{path}: more than {MOST_BYTES // 1_000_000} MB of outlines; export the annotations of tissue, not cells"
        )
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise SettingsError(f"{path}: not GeoJSON; in QuPath: File, Export objects as GeoJSON") from None


def _unpacked(stream: BinaryIO, path: Path) -> bytes:
    """The text of the file, unpacked: at most one byte more than ``MOST_BYTES``, to recognise a longer one."""
    head = stream.read(4)
    stream.seek(0)
    if head.startswith(b"\x1f\x8b"):
        with gzip.open(stream) as unpacked:
            return unpacked.read(MOST_BYTES + 1)
    if head == b"PK\x03\x04":
        with zipfile.ZipFile(stream) as archive:
            names = [name for name in archive.namelist() if name.lower().endswith((".geojson", ".json"))]
            if len(names) != 1:
                raise SettingsError(f"{path}: an archive with {len(names)} GeoJSON files, one is expected")
            with archive.open(names[0]) as unpacked_file:
                return unpacked_file.read(MOST_BYTES + 1)
    return stream.read(MOST_BYTES + 1)
