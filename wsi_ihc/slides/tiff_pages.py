"""Whether a page of a TIFF can be a level of a slide, and whether its tiles can be decoded directly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tifffile import TiffPage

from wsi_ihc.errors import UnreadableSlideError, UnsupportedSlideError
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.slides.assembly import Fourth
from wsi_ihc.slides.levels import check_plane, shows_same_field
from wsi_ihc.slides.reader import NotForThisReader

JPEG = 7
DIRECT = frozenset({1, 5, JPEG, 8, 32773, 32946, 33003, 33005, 34712, 50000, 50001, 50002, 52546})
"""TIFF compressions: none, LZW, JPEG, deflate, PackBits, Adobe deflate, JPEG 2000 (Aperio YCC and RGB, plain), zstd,
WebP, JPEG XL. Old-style JPEG (6) is left to libtiff."""
RGB, YCBCR = 2, 6
CONTIGUOUS = 1
MACRO = 8
"""Bit of NewSubfileType by which Aperio marks the macro image."""
LARGEST_SEGMENT = 128_000_000
"""Most pixels of a tile or strip. It is decoded whole: 384 MB, and twice that during decoding."""


def page_size(page: TiffPage) -> Size:
    """Height and width of the image of a page."""
    return Size(page.imagelength, page.imagewidth)


def is_reduced(page: TiffPage, baseline: TiffPage) -> bool:
    """Whether a page of the main chain can be a level. In strips, only a tag distinguishes a level from a thumbnail."""
    if page.subfiletype & MACRO or page.is_tiled != baseline.is_tiled:
        return False
    return page.is_tiled or bool(page.subfiletype & 1)


def is_smaller(page: TiffPage, than: TiffPage) -> bool:
    """Whether ``page`` is smaller in both axes."""
    return page.imagewidth < than.imagewidth and page.imagelength < than.imagelength


def same_kind(page: TiffPage, baseline: TiffPage) -> bool:
    """Whether both pages have the same number of channels and the same type of sample."""
    return page.samplesperpixel == baseline.samplesperpixel and page.dtype == baseline.dtype


def same_field(page: TiffPage, baseline: TiffPage) -> bool:
    """Whether both pages have the same kind of pixels and the same shape."""
    return same_kind(page, baseline) and shows_same_field(page_size(page), page_size(baseline))


def check(path: Path, page: TiffPage) -> None:
    """Refuses a page that cannot be a level, or whose tiles cannot be decoded directly.

    Raises:
        UnreadableSlideError: damaged or truncated.
        UnsupportedSlideError: not 8-bit RGB, or of an absurd size.
        NotForThisReader: another reader may be able to decode it.
    """
    check_plane(path, page_size(page))
    _check_samples(path, page)
    if obstacle := _obstacle(page):
        raise NotForThisReader(obstacle)
    _check_segments(path, page)


def _check_samples(path: Path, page: TiffPage) -> None:
    """Refuses pixels that are not 8-bit RGB: no reader can use them.

    Raises:
        UnsupportedSlideError: the message states what was found instead.
    """
    if page.dtype is None or page.dtype != np.uint8:
        kind = "unknown samples" if page.dtype is None else f"{page.dtype} samples"
    elif page.samplesperpixel not in (3, 4):
        kind = "greyscale" if page.samplesperpixel == 1 else f"{page.samplesperpixel} channels"
        kind = "a colour palette" if page.photometric == 3 else kind
    elif page.photometric not in (RGB, YCBCR):
        kind = f"photometric interpretation {page.photometric}"
    else:
        return
    raise UnsupportedSlideError(f"{path}: 8-bit brightfield RGB expected, found {kind}")


def _obstacle(page: TiffPage) -> str | None:
    """Why the page's tiles cannot be decoded here, or None when they can."""
    if page.planarconfig != CONTIGUOUS:
        return "its colours lie in separate planes"
    if page.compression not in DIRECT:
        return f"compression {int(page.compression)} is not decoded directly"
    if page.photometric == YCBCR and page.compression not in (JPEG, 33003):
        return "its YCbCr pixels are not JPEG"
    if getattr(page, "fillorder", 1) != 1:
        return "its bits are in reverse order"
    return None


def fourth_channel(page: TiffPage) -> Fourth:
    """Meaning of a fourth channel by the tag ExtraSamples: 1 is premultiplied opacity, 2 opacity, others unknown."""
    kinds = tuple(int(kind) for kind in page.extrasamples or ())
    return {1: "premultiplied", 2: "alpha"}.get(kinds[0] if kinds else 0, "unknown")  # type: ignore[return-value]


def segment_size(page: TiffPage) -> Size:
    """Height and width of a tile; a strip is a tile as wide as the plane."""
    if page.is_tiled:
        return Size(page.tilelength, page.tilewidth)
    return Size(min(page.rowsperstrip, page.imagelength), page.imagewidth)


def _check_segments(path: Path, page: TiffPage) -> None:
    """Refuses a page whose table of tiles contradicts its size, or points beyond the end of the file.

    Raises:
        UnreadableSlideError: contradictory or truncated.
        UnsupportedSlideError: a single tile is too large to decode.
    """
    size, segment = page_size(page), segment_size(page)
    if not all(segment) or segment.height * segment.width > LARGEST_SEGMENT:
        raise UnsupportedSlideError(
            f"{path}: stored in pieces of {segment.width} x {segment.height} px, which cannot be read in part; "
            "convert it to a tiled TIFF first"
        )
    expected = -(-size.height // segment.height) * -(-size.width // segment.width)
    if not expected == len(page.dataoffsets) == len(page.databytecounts):
        raise UnreadableSlideError(
            f"{path}: damaged, {expected} tiles expected and {len(page.dataoffsets)} places with "
            f"{len(page.databytecounts)} lengths listed"
        )
    ends = np.array(page.dataoffsets, np.uint64) + np.array(page.databytecounts, np.uint64)
    beyond = int(np.count_nonzero(ends > path.stat().st_size))
    if beyond:
        raise UnreadableSlideError(
            f"{path}: truncated, {beyond} of {expected} tiles lie beyond the end of the file; copy or download it again"
        )
