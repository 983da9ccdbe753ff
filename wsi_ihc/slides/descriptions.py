"""Pixel size and objective from Aperio's ImageDescription. Nothing else of it may leave the file."""

from __future__ import annotations

import re

from wsi_ihc.slides.pixel_size import from_text


def mpp_of_aperio(description: str) -> tuple[float, float] | None:
    """``MPP = 0.499`` of an Aperio ImageDescription, um/px in x and y."""
    found = re.search(r"\|\s*MPP\s*=([^|\r\n]{0,100})", description)
    return from_text(found.group(1)) if found else None


def objective_of_aperio(description: str) -> str | None:
    """``AppMag = 20`` of an Aperio ImageDescription: the magnification, as text."""
    found = re.search(r"\|\s*AppMag\s*=\s*([0-9.]+)", description)
    return found.group(1) if found else None
