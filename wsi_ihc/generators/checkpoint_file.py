"""Reads the content of a checkpoint file, with bounds and without running code from it."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from wsi_ihc.errors import GeneratorError, one_line

_MOST_ENTRIES = 100_000
_MOST_PICKLE_BYTES = 64 << 20
"""Most bytes of the index of a checkpoint; the weights are separate entries."""


def read_tensors(path: Path) -> object:
    """The content of the file. Code in it is never run.

    Raises:
        GeneratorError: the file cannot be read, is damaged, is no checkpoint, or contains code.
    """
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError as error:
        raise GeneratorError(f"{path}: cannot be read ({error.strerror})") from None
    if seen := _recognise_other(head):
        raise GeneratorError(f"{path}: {seen}, not a checkpoint; download it again")
    if head.startswith(b"PK"):
        _check_archive(path)
    try:
        if head[8:9] == b"{":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise GeneratorError(f"{path}: damaged safetensors file ({one_line(error)})") from None
    except Exception as error:
        # A damaged or hostile pickle can raise any exception.
        raise GeneratorError(f"{path}: {_explain(error, head)}") from None


def _recognise_other(head: bytes) -> str | None:
    text = head.lstrip().lower()
    if not head:
        return "an empty file"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "an HTML page"
    if text.startswith(b"version https://git-lfs"):
        return "a git-LFS pointer"
    return None


def _explain(error: Exception, head: bytes) -> str:
    text = one_line(error)
    if name := re.search(r"GLOBAL ([\w.]+)", text):
        return f"a pickle that wants to run {name.group(1)}: refused; save the plain state dict and import that"
    if head.startswith(b"PK"):
        return "truncated or damaged checkpoint; download it again"
    return f"not a checkpoint that torch can read (it starts with the bytes {head[:4].hex()})"


def _check_archive(path: Path) -> None:
    """Checks the zip archive of a checkpoint: torch does not compare its check sums, and unpacks without a bound.

    Raises:
        GeneratorError: an entry is damaged or compressed (torch never compresses), or the index is too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            problem = _absurdity(entries) or _damage(archive)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError, ValueError):
        problem = "truncated or damaged checkpoint; download it again"
    if problem:
        raise GeneratorError(f"{path}: {problem}")


def _absurdity(entries: list[zipfile.ZipInfo]) -> str | None:
    packed = sum(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    index = max((entry.file_size for entry in entries if entry.filename.endswith(".pkl")), default=0)
    if not packed and len(entries) <= _MOST_ENTRIES and index <= _MOST_PICKLE_BYTES:
        return None
    return (
        f"not an archive that torch has written ({len(entries)} entries, {packed} of them packed, an index of "
        f"{index:,} bytes); save the plain state dict and import that"
    )


def _damage(archive: zipfile.ZipFile) -> str | None:
    name = archive.testzip()
    return f"damaged checkpoint, {name} does not match its check sum; download it again" if name else None
