"""What an output is made from, as flat names and values that can be compared and told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsi_ihc.config import ConversionSettings
from wsi_ihc.slides.files import source_digest

Recipe = Mapping[str, Any]
"""``output.quality: 85``, …, ``generator``, ``source``. JSON values."""

# Not what a slide looks like, but where and how fast it is stained.
_WITHOUT_EFFECT = frozenset({"tiling.core_px", "slide.cache_mb"})


def make_recipe(slide: Path, settings: ConversionSettings, generator: str) -> dict[str, Any]:
    """Everything the pixels of ``slide`` depend on. The version of wsi-ihc is no part of it: an upgrade in the middle
    of a cohort does not begin it anew.
    """
    recipe = _effective(settings) | {"generator": generator, "source": _source(slide)}
    # A bundle is known by its card and its weights, wherever it lies.
    del recipe["generator.name"]
    if settings.tissue.source not in ("auto", "none"):
        recipe["tissue.source"] = _file_sha256(Path(settings.tissue.source))
    return recipe


def digest(recipe: Recipe) -> str:
    """Equal for equal recipes."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def differences(before: Recipe, now: Recipe) -> list[str]:
    """In words. A setting that did not exist yet had what is its default today."""
    defaults = _effective(ConversionSettings())
    found = []
    for key, value in now.items():
        old = before.get(key, defaults.get(key))
        if old == value:
            continue
        match key:
            case "source":
                found.append("the slide has changed")
            case "generator":
                found.append("the generator has changed")
            case _:
                found.append(f"{key} was {old}, is {value}")
    return found


def _effective(settings: ConversionSettings) -> dict[str, Any]:
    dumped = settings.model_dump(mode="json")
    flat = {f"{section}.{key}": value for section, values in dumped.items() for key, value in values.items()}
    return {key: value for key, value in flat.items() if _matters(key)}


def _matters(key: str) -> bool:
    return key == "compute.precision" or not (key.startswith("compute.") or key in _WITHOUT_EFFECT)


def _source(slide: Path) -> str:
    try:
        return source_digest(slide)
    except OSError as error:
        return f"unreadable: {error.strerror}"  # the conversion says what is wrong with it


def _file_sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return f"unreadable: {error.strerror}"
