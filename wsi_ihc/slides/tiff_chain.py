"""The chain of directories of a TIFF, followed no further than a slide needs."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from tifffile import TiffFile, TiffPage, TiffPages

MOST_PAGES = 200
"""Of a chain: levels, label, macro and thumbnail of a slide come first and are a dozen; a focal stack has some more."""


@dataclass(frozen=True)
class Chain:
    """What was found along the main chain."""

    ifds: Mapping[int, TiffPage]
    """Of the first ``MOST_PAGES`` directories those with an image, by their number in the chain."""
    breaks_off: bool
    """Whether it points beyond the file: a download that stopped early, with pages missing."""
    goes_on: bool
    """Whether it is longer than ``MOST_PAGES``, or runs in a circle."""

    @property
    def pages(self) -> tuple[TiffPage, ...]:
        """Those with an image, in their order."""
        return tuple(self.ifds.values())


def main_chain(tiff: TiffFile) -> Chain:
    """The main chain of ``tiff``. A circle ends where it closes."""
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
    # Never asked for their number: tifffile would first follow the chain to its end, which a circle does not have.
    found = {}
    for index in range(count):
        try:
            page = pages[index]
        except IndexError:
            break
        if isinstance(page, TiffPage) and page.imagelength * page.imagewidth:
            found[index] = page
    return found
