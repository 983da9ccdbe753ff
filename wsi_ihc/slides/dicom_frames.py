"""Frames of a DICOM file: their byte offsets, so that each can be read alone, and the decoding of one frame."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO, Literal

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.slides.assembly import Pixels
from wsi_ihc.slides.coded_size import check_coded_size
from wsi_ihc.slides.jpeg_damage import check_jpeg

Coding = Literal["native", "jpeg", "jpeg2000", "rle"]
CODINGS: dict[str, Coding] = {
    "1.2.840.10008.1.2": "native",
    "1.2.840.10008.1.2.1": "native",
    "1.2.840.10008.1.2.4.50": "jpeg",
    "1.2.840.10008.1.2.4.51": "jpeg",
    "1.2.840.10008.1.2.4.90": "jpeg2000",
    "1.2.840.10008.1.2.4.91": "jpeg2000",
    "1.2.840.10008.1.2.4.201": "jpeg2000",
    "1.2.840.10008.1.2.4.202": "jpeg2000",
    "1.2.840.10008.1.2.4.203": "jpeg2000",
    "1.2.840.10008.1.2.5": "rle",
}
"""Transfer syntaxes whose frames are decoded here (DICOM PS3.5, annex A)."""
ITEM, END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
FRAME_BEGINS = (b"\xff\xd8\xff", b"\xff\x4f\xff")
"""First bytes of a JPEG and of a JPEG 2000 codestream."""

Spans = NDArray[np.int64]
"""(frames, 2): offset of each frame's first byte in the file, and of the byte after its last."""


def native_spans(stream: BinaryIO, implicit: bool, count: int, frame_bytes: int) -> Spans:
    """Spans of uncompressed frames, which follow each other. The stream stands at the pixel data element.

    Raises:
        ValueError: the file ends before the last frame.
    """
    first = stream.tell() + (8 if implicit else 12)
    held = (_size(stream) - first) // frame_bytes
    if held < count:
        raise ValueError(f"truncated, {max(0, held)} of {count} frames are there")
    starts = first + np.arange(count, dtype=np.int64) * frame_bytes
    return np.stack([starts, starts + frame_bytes], axis=1)


def encapsulated_spans(stream: BinaryIO, count: int, extended: bytes) -> Spans:
    """Spans of frames in items (PS3.5, annex A.4), item headers included. The stream stands at the pixel data element.

    The offsets come from the ``extended`` offset table, or else from the basic one. Where both are absent or cannot be
    true, the items are followed from one to the next.

    Raises:
        ValueError: the file ends early, or the items are not those of ``count`` frames.
    """
    if count > _size(stream):
        raise ValueError(f"{count} frames in so small a file")
    stream.seek(12, os.SEEK_CUR)
    basic = stream.read(_item_length(stream))
    first = stream.tell()
    offsets = np.frombuffer(extended or basic, "<u8" if extended else "<u4").astype(np.int64)
    if _are_true(stream, offsets, first, count):
        starts = first + offsets
        last = _items(stream, int(starts[-1]))
        return np.stack([starts, np.append(starts[1:], last[-1, 1])], axis=1)
    return _grouped(stream, _items(stream, first), count)


def _are_true(stream: BinaryIO, offsets: NDArray[np.int64], first: int, count: int) -> bool:
    """Whether an offset table can be true: 32 bits overflow in large files, and some writers count from elsewhere.

    Raises:
        ValueError: the file ends before the last frame.
    """
    if offsets.size == 0 or offsets.size != count or offsets[0] != 0 or (offsets[1:] <= offsets[:-1]).any():
        return False
    last = first + int(offsets[-1])
    if last + 8 > _size(stream):
        raise ValueError(f"truncated, {np.count_nonzero(offsets + 8 < _size(stream) - first)} of {count} frames begin")
    stream.seek(last)
    return stream.read(4) == ITEM


def _items(stream: BinaryIO, position: int) -> Spans:
    """Spans of the items from ``position`` to the delimiter.

    Raises:
        ValueError: truncated, damaged, or no item at all.
    """
    size, found = _size(stream), []
    while position < size:
        stream.seek(position)
        tag, length = struct.unpack("<4sI", stream.read(8).ljust(8, b"\0"))
        if tag != ITEM:
            break
        found.append((position, position + 8 + length))
        position += 8 + length
    if position > size or not found:
        raise ValueError(f"truncated, {max(0, len(found) - 1)} whole items of pixel data are there")
    if position < size and tag != END:
        raise ValueError(f"damaged after {len(found)} items of pixel data")
    return np.array(found, np.int64)


def _grouped(stream: BinaryIO, items: Spans, count: int) -> Spans:
    """Spans of ``count`` frames: one item each, or a single frame of all items, or one from each codestream's start.

    Raises:
        ValueError: the items do not make ``count`` frames.
    """
    if len(items) == count:
        return items
    begins = [0]
    if count > 1:
        begins = [index for index, (start, _) in enumerate(items) if _peek(stream, int(start) + 8) in FRAME_BEGINS]
    if len(begins) != count or begins[0] != 0:
        raise ValueError(f"{count} frames expected, {len(items)} items of pixel data found")
    return np.stack([items[begins, 0], np.append(items[begins[1:], 0], items[-1, 1])], axis=1)


def _peek(stream: BinaryIO, position: int) -> bytes:
    stream.seek(position)
    return stream.read(3)


def _item_length(stream: BinaryIO) -> int:
    tag, length = struct.unpack("<4sI", stream.read(8).ljust(8, b"\0"))
    if tag != ITEM or length > _size(stream):
        raise ValueError("the pixel data do not begin with a table of offsets")
    return int(length)


def _size(stream: BinaryIO) -> int:
    return os.fstat(stream.fileno()).st_size


def unwrapped(span: bytes) -> bytes:
    """The data of a frame without the headers of its items.

    Raises:
        ValueError: no item where one should begin, or one that is longer than the frame.
    """
    parts, position = [], 0
    while position < len(span):
        tag, length = struct.unpack("<4sI", span[position : position + 8].ljust(8, b"\0"))
        position += 8 + length
        if tag != ITEM or position > len(span):
            raise ValueError("its item is damaged")
        parts.append(span[position - length : position])
    return b"".join(parts)


def decode(data: bytes, coding: Coding, size: Size, photometric: str, planar: bool) -> Pixels:
    """The (height, width, 3) RGB pixels of a frame of ``size``.

    Raises:
        Exception: the data are damaged; each codec has exceptions of its own.
    """
    if coding in ("jpeg", "jpeg2000"):
        check_coded_size(data, size)
    match coding:
        case "jpeg":
            _check_end(data)
            check_jpeg(data)
            space = "RGB" if photometric == "RGB" and _is_bare(data) else None
            pixels = imagecodecs.jpeg8_decode(data, colorspace=space, outcolorspace="RGB")
        case "jpeg2000":
            _check_end(data)  # its own transforms, YBR_RCT and YBR_ICT, are undone by every decoder
            pixels = _from_ybr(imagecodecs.jpeg2k_decode(data), photometric)
        case "rle":
            planes = np.frombuffer(imagecodecs.dicomrle_decode(data, np.uint8), np.uint8).reshape(3, *size)
            pixels = _from_ybr(np.moveaxis(planes, 0, 2), photometric)
        case "native":
            samples = np.frombuffer(data, np.uint8)
            laid = np.moveaxis(samples.reshape(3, *size), 0, 2) if planar else samples.reshape(*size, 3)
            pixels = _from_ybr(laid, photometric)
    if pixels.shape != (*size, 3) or pixels.dtype != np.uint8:
        raise ValueError(f"{size.width} x {size.height} px expected, decoded {pixels.dtype} {pixels.shape}")
    return np.ascontiguousarray(pixels)


def _check_end(data: bytes) -> None:
    """Refuses JPEG and JPEG 2000 data without their end marker: decoders fill the missing part with grey."""
    if b"\xff\xd9" not in data.rstrip(b"\0\xff")[-16:]:
        raise ValueError("its data stop before their end")


def _is_bare(data: bytes) -> bool:
    """Whether a JPEG says nothing about its colour space, so that only the DICOM header can say that it holds RGB.

    A JFIF or Adobe marker, or chroma subsampling, is better evidence than the header, which writers copy from the
    uncompressed image. Without such evidence libjpeg would assume YCbCr.
    """
    position = 2
    while position + 12 < len(data):
        mark, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if (mark == 0xE0 and data[position + 4 :].startswith(b"JFIF")) or mark == 0xEE:
            return False
        if mark in (0xC0, 0xC1, 0xC2):
            return data[position + 11] == 0x11
        position += 2 + length
    return False


def _from_ybr(pixels: NDArray[np.uint8], photometric: str) -> Pixels:
    """RGB from samples in full-range YCbCr (PS3.3, C.7.6.3.1.2), the one that JPEG uses; RGB samples unchanged."""
    if photometric not in ("YBR_FULL", "YBR_FULL_422"):
        return pixels
    return cv2.cvtColor(np.ascontiguousarray(pixels[..., [0, 2, 1]]), cv2.COLOR_YCrCb2RGB).astype(np.uint8, copy=False)
