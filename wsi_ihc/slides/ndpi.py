"""The planes of focus of a Hamamatsu NDPI, by its own tags."""

from __future__ import annotations

import warnings
from pathlib import Path

from tifffile import TiffFile

from wsi_ihc.slides.identify import identify
from wsi_ihc.slides.tiff_chain import main_chain

MAGNIFICATION, Z_OFFSET = 65421, 65424
"""Tags: the lens of an image (negative for a macro or a map), and its distance from the nominal plane, in nm."""


def ndpi_focal_offsets(path: Path) -> tuple[int, ...]:
    """Offsets of the planes at full size, ascending, in nm; empty for a file that is no NDPI."""
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
    except Exception:  # a damaged tag raises anything; OpenSlide says what is wrong with the file
        return ()
