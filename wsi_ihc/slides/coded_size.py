"""The size in the header of an encoded picture. It is checked before a decoder allocates memory for it."""

from __future__ import annotations

import struct

from wsi_ihc.pyramid.geometry import Size

SLACK = 2
"""A picture may have this many times the pixels of its tile: some writers pad tiles."""


def check_coded_size(data: bytes, expected: Size) -> None:
    """Refuses an encoded picture whose header states far more pixels than are ``expected``.

    Data in another format pass: their decoders get the expected size.

    Raises:
        ValueError: the message states both sizes.
    """
    size = coded_size(data)
    if size and size.height * size.width > SLACK * expected.height * expected.width + 65_536:
        raise ValueError(
            f"{expected.width} x {expected.height} px expected, its own header says {size.width} x {size.height}"
        )


def coded_size(data: bytes) -> Size | None:
    """Height and width in the header of a JPEG, JPEG 2000, JPEG XL, WebP or PNG; None for other or damaged data."""
    try:
        if data.startswith(b"\xff\xd8"):
            return _jpeg(data)
        if data.startswith(b"\xff\x4f\xff\x51"):
            return _jpeg2000(data)
        if data.startswith(b"\0\0\0\x0cjP  "):
            start = data.find(b"\xff\x4f\xff\x51")
            return _jpeg2000(data[start : start + 64]) if start >= 0 else None
        if data.startswith(b"\xff\x0a"):
            return _jpeg_xl(data[2:16])
        if data.startswith(b"\0\0\0\x0cJXL "):
            return _boxed_jpeg_xl(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height = struct.unpack(">II", data[16:24])
            return Size(height, width)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data)
    except (struct.error, IndexError):
        return None  # truncated within the header: the decoder reports it
    return None


def _jpeg(data: bytes) -> Size | None:
    """Size in the frame header (ITU-T T.81, B.2.2); None where there is none before the scan."""
    position = 2
    while position + 9 < len(data):
        if data[position] != 0xFF:
            return None
        mark = data[position + 1]
        if mark == 0xFF:  # a fill byte
            position += 1
            continue
        if 0xC0 <= mark <= 0xCF and mark not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[position + 5 : position + 9])
            return Size(height, width)
        if mark == 0xDA:
            return None
        bare = mark == 0x01 or 0xD0 <= mark <= 0xD8
        position += 2 if bare else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None


def _jpeg2000(data: bytes) -> Size:
    """Size in the SIZ marker (ISO 15444-1, A.5.1): extent of the reference grid less the offset of the image.

    More than four components multiply the height, four at a time, because the decoder allocates all of them.
    """
    width, height, left, top = struct.unpack(">IIII", data[8:24])
    (components,) = struct.unpack(">H", data[40:42])
    return Size(max(0, height - top) * max(1, -(-components // 4)), max(0, width - left))


def _webp(data: bytes) -> Size | None:
    """Size in a lossy, lossless or extended WebP bitstream (RFC 9649)."""
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", body[6:10])
        return Size(height & 0x3FFF, width & 0x3FFF)
    if kind == b"VP8L":
        (bits,) = struct.unpack("<I", body[1:5])
        return Size((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1)
    if kind == b"VP8X":
        return Size(int.from_bytes(body[7:10], "little") + 1, int.from_bytes(body[4:7], "little") + 1)
    return None


_RATIOS = (None, (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def _jpeg_xl(data: bytes) -> Size:
    """Size in the SizeHeader (ISO 18181-1, D.2); bits are read from the lowest of the first byte on."""
    bits, position = int.from_bytes(data, "little"), 0

    def take(count: int) -> int:
        nonlocal position
        position += count
        return bits >> (position - count) & ((1 << count) - 1)

    def side(small: bool) -> int:
        return 8 * (take(5) + 1) if small else take((9, 13, 18, 30)[take(2)]) + 1

    small = bool(take(1))
    height = side(small)
    ratio = _RATIOS[take(3)]
    return Size(height, height * ratio[0] // ratio[1] if ratio else side(small))


def _boxed_jpeg_xl(data: bytes) -> Size | None:
    """Size in a JPEG XL container: the codestream is in the box jxlc, or in jxlp behind an index of four bytes."""
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        if kind in (b"jxlc", b"jxlp"):
            start = position + (8 if kind == b"jxlc" else 12)
            return _jpeg_xl(data[start + 2 : start + 16]) if data[start : start + 2] == b"\xff\x0a" else None
        if length < 8:
            return None
        position += length
    return None
