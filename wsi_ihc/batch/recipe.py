"""The fingerprint of a slide of a batch, known before its conversion starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wsi_ihc.batch.records import SlideRecord
from wsi_ihc.config import ConversionSettings
from wsi_ihc.conversion.fingerprint import Fingerprint as Recipe
from wsi_ihc.conversion.fingerprint import differences, digest, fingerprint
from wsi_ihc.slides.files import source_digest

__all__ = ["Recipe", "changed_settings", "differences", "digest", "make_recipe"]


def make_recipe(slide: Path, settings: ConversionSettings, generator: str) -> dict[str, Any]:
    """Everything that the pixels of ``slide`` depend on; a slide that cannot be read has a fingerprint too."""
    try:
        source = source_digest(slide)
    except OSError as error:
        source = f"unreadable: {error.strerror}"  # the conversion says what is wrong with it
    return fingerprint(source, settings, generator)


def changed_settings(record: SlideRecord) -> str:
    """The settings behind an output that are not the defaults: ``output.quality=70 slide.mpp=0.25``."""
    usual = {key: value for key, value in fingerprint("", ConversionSettings(), "").items() if "." in key}
    own = {key: value for key, value in record.recipe.items() if key in usual and value != usual[key]}
    return " ".join(f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in own.items())
