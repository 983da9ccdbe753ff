"""Which names the output of a slide cannot have in a batch."""

from __future__ import annotations

import os

RESERVED = frozenset({"summary", "index"})
"""The batch writes ``summary.json``, ``summary.csv`` and ``index.html`` into the folder of the outputs."""


def unusable(name: str, longest: int) -> str:
    """Why no output can have this name; empty when one can."""
    if "/" in name or "\\" in name or name.startswith(".") or "\0" in name:
        return "is not the name of a file; folders come from -o"
    if name.lower() in RESERVED:
        return "is the name of a file of the batch itself; choose another"
    if len(os.fsencode(name)) > longest:
        return f"is longer than {longest} bytes"
    return ""
