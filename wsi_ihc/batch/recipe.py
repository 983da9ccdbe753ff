"""The fingerprint of a slide of a batch, known before its conversion starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsi_ihc.config import ConversionSettings
from wsi_ihc.conversion.fingerprint import Fingerprint as Recipe
from wsi_ihc.conversion.fingerprint import differences, digest, fingerprint
from wsi_ihc.slides.files import source_digest

__all__ = ["Recipe", "differences", "digest", "make_recipe"]


def make_recipe(slide: Path, settings: ConversionSettings, generator: str) -> dict[str, Any]:
    """Everything that the pixels of ``slide`` depend on; a slide that cannot be read has a fingerprint too."""
    try:
        source = source_digest(slide)
    except OSError as error:
        source = f"unreadable: {error.strerror}"  # the conversion says what is wrong with it
    return fingerprint(source, settings, generator)
