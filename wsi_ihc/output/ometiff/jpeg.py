"""Reads the header of a JPEG stream without decoding the pixels."""

from __future__ import annotations

from dataclasses import dataclass

_SOI, _EOI, _SOS, _DQT, _JFIF, _ADOBE = 0xD8, 0xD9, 0xDA, 0xDB, 0xE0, 0xEE
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """``sampling`` is the first component's (horizontal, vertical) against the others: (2, 2) is 4:2:0.

    ``step`` is the coarsest quantisation of a mean over 8x8 pixels, in grey levels times 8. ``ycbcr`` is the
    colour space that the stream states by an Adobe or JFIF marker or by components named R, G, B; None without one.
    """

    height: int
    width: int
    components: int
    sampling: tuple[int, int]
    step: int
    ycbcr: bool | None


def read_jpeg_header(data: bytes, tables: bytes | None = None) -> JpegHeader:
    """The header of a stream whose quantisation may be in the TIFF's shared ``tables``.

    Raises:
        ValueError: no JPEG, or damaged before its pixels.
    """
    segments = _segments(data)
    step = max(
        (max(_steps(body), default=1) for marker, body in _tables(tables) + segments if marker == _DQT), default=1
    )
    for marker, body in segments:
        if marker in _FRAMES and len(body) >= 9:
            components = body[5]
            horizontal, vertical = body[7] >> 4, body[7] & 15
            if components == 3 and len(body) >= 15:
                horizontal, vertical = horizontal // max(1, body[10] >> 4), vertical // max(1, body[10] & 15)
            height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            return JpegHeader(height, width, components, (horizontal, vertical), step, _is_ycbcr(segments, body))
    raise ValueError("a JPEG stream without a frame header")


def _is_ycbcr(segments: list[tuple[int, bytes]], frame: bytes) -> bool | None:
    for marker, body in segments:
        if marker == _ADOBE and body[:5] == b"Adobe":
            return body[11:12] != b"\0"
        if marker == _JFIF and body[:5] == b"JFIF\0":
            return True
    return False if bytes(frame[6:15:3]) == b"RGB" else None


def _tables(tables: bytes | None) -> list[tuple[int, bytes]]:
    return _segments(tables) if tables else []


def _segments(data: bytes) -> list[tuple[int, bytes]]:
    """Marker and body of every segment before the pixels."""
    if data[:2] != bytes((0xFF, _SOI)):
        raise ValueError("not a JPEG stream")
    position, found = 2, []
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            raise ValueError("a JPEG stream whose header is damaged")
        marker = data[position + 1]
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == _EOI or length < 2:
            break
        found.append((marker, data[position + 4 : position + 2 + length]))
        if marker == _SOS:
            break
        position += 2 + length
    return found


def _steps(body: bytes) -> list[int]:
    """The step of the mean (DC) in each quantisation table of a segment."""
    steps, position = [], 0
    while position < len(body):
        wide = body[position] >> 4
        steps.append(int.from_bytes(body[position + 1 : position + 2 + (1 if wide else 0)], "big"))
        position += 1 + 64 * (2 if wide else 1)
    return steps
