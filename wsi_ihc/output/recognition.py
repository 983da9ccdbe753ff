"""Whether a file is an output of this program, by its content: names can be given by anyone."""

from __future__ import annotations

from pathlib import Path

from wsi_ihc.machine.regular_files import is_regular
from wsi_ihc.output.ometiff.omexml import PROVENANCE_NAMESPACE

_HEAD_BYTES = 1 << 16
"""The OME-XML of an output follows its first directory."""


def is_output(path: Path) -> bool:
    """Whether ``path`` is a TIFF that carries our provenance near its beginning; False where it cannot be read."""
    try:
        if not is_regular(path.resolve()):
            return False
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except (OSError, ValueError, RuntimeError):
        return False
    return head.startswith((b"II", b"MM")) and PROVENANCE_NAMESPACE.encode() in head
