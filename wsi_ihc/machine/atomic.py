"""A file under its name is whole, or not there."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from wsi_ihc.errors import StorageError


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """The file appears or changes at once, and survives a power cut; its folder is made where it is missing.

    Raises:
        StorageError: it cannot be written; what was under the name is still there.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error})") from None
