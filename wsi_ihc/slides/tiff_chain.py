"""The chain of directories of a TIFF, followed only as far as a slide needs."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from tifffile import TiffFile, TiffPage, TiffPages

MOST_PAGES = 200
"""Directories of a chain that are read. A slide has about a dozen, levels, label and macro; a focal stack has more."""


@dataclass(frozen=True)
class Chain:
    """The main chain of a TIFF."""

    ifds: Mapping[int, TiffPage]
    """Directories with an image among the first ``MOST_PAGES``, by their number in the chain."""
    breaks_off: bool
    """Whether the chain points beyond the end of the file: a truncated download, with pages missing."""
    goes_on: bool
    """Whether the chain is longer than ``MOST_PAGES``, or a circle."""

    @property
    def pages(self) -> tuple[TiffPage, ...]:
        """The directories with an image, in order."""
        return tuple(self.ifds.values())


def main_chain(tiff: TiffFile) -> Chain:
    """The main chain of ``tiff``; a circle is followed once."""
    form, file = tiff.tiff, tiff.filehandle
    offset, seen, breaks_off = tiff.pages.first.offset, dict[int, None](), False
    while offset and offset not in seen and len(seen) < MOST_PAGES:
        seen[offset] = None
        file.seek(offset)
        (tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
        file.seek(tags * form.tagsize, 1)
        rest = file.read(form.offsetsize)
        offset = struct.unpack(form.offsetformat, rest)[0] if len(rest) == form.offsetsize else file.size
        breaks_off = offset >= file.size
        if breaks_off:
            break
    return Chain(_with_image(tiff.pages, len(seen)), breaks_off, bool(offset) and not breaks_off)


def sub_pages(page: TiffPage) -> tuple[TiffPage, ...]:
    """The SubIFDs of ``page`` with an image."""
    if not (page.subifds and page.pages):
        return ()
    return tuple(_with_image(page.pages, min(len(page.subifds), MOST_PAGES)).values())


def _with_image(pages: TiffPages, count: int) -> dict[int, TiffPage]:
    # len(pages) is not used: tifffile would follow the chain to its end, and a circle has none.
    found = {}
    for index in range(count):
        try:
            page = pages[index]
        except IndexError:
            break
        if isinstance(page, TiffPage) and page.imagelength * page.imagewidth:
            found[index] = page
    return found
