"""Outputs of wsi-ihc as the viewer opens them: their pyramid, their provenance, and the account of their run."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from pydantic import ValidationError

from wsi_ihc.errors import UnreadableSlideError, UnsupportedSlideError, one_line
from wsi_ihc.output.ometiff.verification import provenance_entries
from wsi_ihc.output.provenance import Provenance, sidecar_path
from wsi_ihc.pyramid.geometry import Size

_JPEG = 7


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
    try:
        with tifffile.TiffFile(path) as tiff:
            entries = _entries(tiff)
            pyramid = _TiffPyramid.of(path, tiff) if entries else None
    except FileNotFoundError:
        raise UnreadableSlideError(f"{path}: no such file; check the path") from None
    except (tifffile.TiffFileError, OSError, ValueError, IndexError, KeyError) as error:
        raise UnreadableSlideError(
            f"{path}: cannot be read as an output ({one_line(error)}); run verify on it"
        ) from None
    if pyramid is None:
        raise UnsupportedSlideError(f"{path}: not an output of wsi-ihc, it carries no provenance")
    try:
        provenance = Provenance.model_validate(_nested(entries))
    except ValidationError as error:
        raise UnsupportedSlideError(f"{path}: its provenance is incomplete ({one_line(error)})") from None
    return Output(path, provenance, {"stained": pyramid}, read_sidecar(path).get("run", {}))


def provenance_entries_of(path: Path) -> dict[str, str]:
    """Names and values of the provenance inside the file; empty where wsi-ihc did not make it. Reads one directory."""
    try:
        with tifffile.TiffFile(path) as tiff:
            return _entries(tiff)
    except (tifffile.TiffFileError, OSError, ValueError, IndexError, KeyError):
        return {}


def read_sidecar(path: Path) -> dict[str, Any]:
    """The JSON beside the output ``path``; empty when it is missing or damaged."""
    try:
        content = json.loads(sidecar_path(path).read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _entries(tiff: tifffile.TiffFile) -> dict[str, str]:
    first: Any = tiff.pages[0]
    description = first.tags.get(270)
    text = str(description.value) if description else ""
    if "<OME" not in text[:4096]:
        return {}
    try:
        return provenance_entries(ElementTree.fromstring(text.encode()))
    except ElementTree.ParseError:
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


class TileCodec(Protocol):
    """How the tiles of a pyramid are encoded."""

    @property
    def side(self) -> int: ...
    @property
    def media_type(self) -> str | None: ...

    @property
    def fill_tile(self) -> bytes: ...
    def decode(self, data: bytes) -> NDArray[np.uint8]: ...


class TilePyramid(Protocol):
    """Encoded tiles by level, row and column."""

    @property
    def levels(self) -> tuple[Size, ...]: ...
    @property
    def codec(self) -> TileCodec: ...
    @property
    def mpp(self) -> float | None: ...
    def tile(self, level: int, row: int, column: int) -> bytes | None: ...


@dataclass(frozen=True)
class _Codec:
    side: int
    page: Any

    @property
    def media_type(self) -> str | None:
        return "image/jpeg" if self.page.compression == _JPEG else None

    @property
    def fill_tile(self) -> bytes:
        raise NotImplementedError

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        if self.page.compression == _JPEG:
            return np.asarray(imagecodecs.jpeg8_decode(data))
        return np.asarray(self.page.decode(data, 0)[0][0])


@dataclass(frozen=True)
class _TiffPyramid:
    levels: tuple[Size, ...]
    pages: tuple[Any, ...]
    descriptor: int
    mpp: float | None = None

    @classmethod
    def of(cls, path: Path, tiff: tifffile.TiffFile) -> _TiffPyramid:
        first: Any = tiff.pages[0]
        pages = (first, *(first.pages or ()))
        levels = tuple(Size(page.imagelength, page.imagewidth) for page in pages)
        made = cls(levels, pages, os.open(path, os.O_RDONLY))
        weakref.finalize(made, os.close, made.descriptor)
        return made

    @cached_property
    def codec(self) -> _Codec:
        return _Codec(self.pages[0].tilewidth, self.pages[0])

    def place(self, level: int, row: int, column: int) -> tuple[int, int]:
        page = self.pages[level]
        index = row * -(-page.imagewidth // page.tilewidth) + column
        return page.dataoffsets[index], page.databytecounts[index]

    def tile(self, level: int, row: int, column: int) -> bytes | None:
        offset, count = self.place(level, row, column)
        return os.pread(self.descriptor, count, offset)
