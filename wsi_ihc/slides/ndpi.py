"""The focal planes of a Hamamatsu NDPI, from its private tags."""

from __future__ import annotations

import warnings
from pathlib import Path

from tifffile import TiffFile

from wsi_ihc.slides.identify import identify
from wsi_ihc.slides.tiff_chain import main_chain

Z_OFFSET = 65424
"""Tag: distance of an image from the nominal focal plane, nm."""


def ndpi_focal_offsets(path: Path) -> tuple[int, ...]:
    """Offsets of the focal planes at full size in nm, ascending; empty for a file that is no NDPI."""
    if path.is_dir() or identify(path) != "tiff":
        return ()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with TiffFile(path) as tiff:
                if not tiff.is_ndpi:
                    return ()
                pages = main_chain(tiff).pages
                widest = max((page.imagewidth for page in pages), default=0)
                found = {int(page.tags.valueof(Z_OFFSET, 0)) for page in pages if page.imagewidth == widest}
                return tuple(sorted(found))
    except Exception:  # a damaged tag can raise any exception; OpenSlide reports the fault of the file
        return ()
