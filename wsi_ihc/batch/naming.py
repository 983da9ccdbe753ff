"""What the output of a slide is called."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

OUTPUT_SUFFIX = re.compile(r"(\.ome)?\.tiff?$", re.IGNORECASE)
RESERVED = frozenset({"summary", "index"})
"""The batch writes ``summary.json``, ``summary.csv`` and ``index.html`` into the folder of the outputs."""

_NAME_MAX = 255
_DERIVED_BYTES = 48
"""Room for what is added to a name: ``.ome.tiff``, ``.blocks.zarr``, and the marks of files that are being written."""


def longest_name(folder: Path) -> int:
    """How many bytes the name of an output in ``folder`` may have, without its suffix."""
    there = next((parent for parent in (folder, *folder.absolute().parents) if parent.is_dir()), Path("/"))
    try:
        limit = os.pathconf(there, "PC_NAME_MAX")
    except (OSError, ValueError, AttributeError):
        limit = _NAME_MAX
    return min(limit, _NAME_MAX) - _DERIVED_BYTES


def output_name(slide: Path, longest: int = _NAME_MAX - _DERIVED_BYTES) -> str:
    """``case.7_ihc`` for ``case.7.svs``; a folder has no suffix to lose.

    A name of more than ``longest`` bytes is cut, and ends in a hash of the whole.
    """
    stem = slide.name if slide.is_dir() else OUTPUT_SUFFIX.sub("", slide.name)
    name = f"{stem if slide.is_dir() or stem != slide.name else slide.stem}_ihc"
    if name.startswith("."):
        name = f"_{name}"  # a hidden file that was named itself; its output is meant to be seen
    return name if len(os.fsencode(name)) <= longest else _cut(name, longest)


def unusable(name: str, longest: int) -> str:
    """Why no output can have this name; empty when one can."""
    if "/" in name or "\\" in name or name.startswith(".") or "\0" in name:
        return "is not the name of a file; folders come from -o"
    if name.lower() in RESERVED:
        return "is the name of a file of the batch itself; choose another"
    if len(os.fsencode(name)) > longest:
        return f"is longer than {longest} bytes"
    return ""


def _cut(name: str, longest: int) -> str:
    whole = os.fsencode(name)
    mark = f"~{hashlib.sha256(whole).hexdigest()[:8]}_ihc"
    kept = whole[: longest - len(mark)].decode("utf-8", "ignore") or "slide"
    return kept + mark
