"""Outputs of wsi-ihc as the viewer opens them: their pyramids, their provenance, and the account of their run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import tifffile
from pydantic import ValidationError

from wsi_ihc.config import first_problem
from wsi_ihc.errors import UnsupportedSlideError
from wsi_ihc.output import formats
from wsi_ihc.output.ometiff.omexml import provenance_entries
from wsi_ihc.output.provenance import Provenance, read_sidecar
from wsi_ihc.pyramid.pyramid import TilePyramid


@dataclass(frozen=True)
class Output:
    """A finished output, open for reading."""

    path: Path
    provenance: Provenance
    pyramids: Mapping[str, TilePyramid]
    """By the name of the layer."""
    run: Mapping[str, Any]
    """What the JSON beside the file says of its run; empty without one."""


def open_output(path: Path) -> Output:
    """Opens an output of wsi-ihc.

    Raises:
        UnreadableSlideError: missing or damaged.
        UnsupportedSlideError: a sound file, but wsi-ihc did not make it.
    """
    entries = provenance_entries_of(path)
    if path.is_file() and not entries:
        raise UnsupportedSlideError(f"{path}: not an output of wsi-ihc, it carries no provenance")
    pyramids = formats.open_output(path)
    try:
        provenance = Provenance.model_validate(_nested(entries))
    except ValidationError as error:
        raise UnsupportedSlideError(f"{path}: its provenance cannot be read, {first_problem(error)}") from None
    return Output(path, provenance, pyramids, read_sidecar(path).get("run", {}))


def provenance_entries_of(path: Path) -> dict[str, str]:
    """Names and values of the provenance inside the file; empty where wsi-ihc did not make it. Reads one directory."""
    try:
        with tifffile.TiffFile(path) as tiff:
            first: Any = tiff.pages[0]
            text = str(first.tags[270].value)
            return provenance_entries(ElementTree.fromstring(text.encode())) if "<OME" in text[:4096] else {}
    except Exception:  # a damaged or foreign file ends in any of Python's errors, and is no output of ours
        return {}


def _nested(entries: Mapping[str, str]) -> dict[str, Any]:
    """``versions.torch`` back into its own mapping."""
    nested: dict[str, Any] = {}
    for name, value in entries.items():
        outer, _, inner = name.partition(".")
        if inner:
            nested.setdefault(outer, {})[inner] = value
        else:
            nested[name] = value
    return nested
