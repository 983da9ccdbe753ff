"""The format of a file by its first bytes: names lie."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Literal

from wsi_ihc.errors import UnreadableSlideError, UnsupportedSlideError

Kind = Literal["tiff", "dicom", "image", "other"]

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
IMAGE = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"\0\0\0\x0cjP  \r\n\x87\n",
    b"\xff\x4f\xff\x51",
    b"BM",
)
UNSUPPORTED = {
    ".isyntax": "Philips iSyntax",
    ".i2syntax": "Philips iSyntax",
    ".vsi": "Evident (Olympus) VSI",
    ".kfb": "KFBio",
    ".sdpc": "SQRay",
    ".dyj": "SQRay",
    ".mds": "Motic",
    ".mdsx": "Motic",
    ".lif": "Leica LIF",
    ".lof": "Leica LOF",
    ".ets": "Evident (Olympus) ETS",
    ".tron": "InteMedic",
    ".bkf": "BIOKF",
    ".tmap": "Unic TMAP",
}
"""Suffixes and names of slide formats that no reader here can open."""
EXPORT = "export it as a pyramidal TIFF, OME-TIFF or DICOM"
PRINTABLE = frozenset(string.printable.encode())


def identify(path: Path) -> Kind:
    """The kind of the file or folder; ``other`` is left to OpenSlide, whose formats of several files have no one mark.

    Raises:
        UnreadableSlideError: missing, empty, not permitted, or clearly not a slide.
        UnsupportedSlideError: a slide in a format that no reader here can open.
    """
    try:
        if path.is_dir():
            return "dicom"
        with path.open("rb") as stream:
            head = stream.read(512)
    except OSError as error:
        raise UnreadableSlideError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    if head and (form := is_unsupported(path)):  # before all else: a .vsi is a TIFF too, of a small preview
        raise UnsupportedSlideError(f"{path}: {form}, a format that is not supported; {EXPORT}")
    if head.startswith(TIFF):
        return "tiff"
    if head[128:132] == b"DICM":
        return "dicom"
    if path.suffix.lower() == ".mrxs":
        return "other"  # begins as a JPEG of the label; the slide lies in the folder beside it
    if head.startswith(IMAGE) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP"):
        return "image"
    if what := _no_slide(head):
        raise UnreadableSlideError(f"{path}: {what}")
    return "other"


def is_dicom(file: Path) -> bool:
    """Whether the file has the DICOM prefix after its preamble of 128 bytes."""
    try:
        with file.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def is_unsupported(path: Path) -> str | None:
    """The name of the format by the suffix of ``path``, where no reader here can open that format; else None."""
    return UNSUPPORTED.get(path.suffix.lower())


def _no_slide(head: bytes) -> str | None:
    """What the file is instead of a slide, and what to do about it; None where it may be a slide."""
    text = head.lstrip().lower()
    if not head:
        return "empty; copy or download it again"
    if text.startswith(b"version https://git-lfs"):
        return "a git-LFS pointer, not the slide itself; fetch it with git lfs pull"
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page saved under a slide's name; download the slide again"
    if b"dpufsimport" in text:
        return f"{UNSUPPORTED['.isyntax']}, a format that is not supported; {EXPORT}"
    if text.startswith((b"<?xml", b"{")):
        return "a text file of XML or JSON, not a slide"
    if head.startswith((b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf")):
        return "a compressed archive; unpack it first"
    if all(byte in PRINTABLE for byte in head) and not text.startswith(b"["):  # Hamamatsu's VMS begins with a [section]
        return "a text file, not a slide"
    return None
