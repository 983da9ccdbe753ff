"""The fingerprint of an output: everything its pixels depend on, as flat names and JSON values.

A conversion compares it with that of the store it would continue, a batch with that of the output it finds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wsi_ihc.config import ConversionSettings

Fingerprint = Mapping[str, Any]
"""``output.quality: 85``, …, ``generator``, ``source``."""

# Settings that say where and how fast a slide is stained, or what is refused, but not what the output looks like.
_SECTIONS_WITHOUT_EFFECT = ("compute.", "checks.")
_WITHOUT_EFFECT = frozenset({"tiling.core_px", "slide.cache_mb"})
_WITH_EFFECT = frozenset({"compute.precision"})


def fingerprint(source: str, settings: ConversionSettings, generator: str) -> dict[str, Any]:
    """The fingerprint as far as it is known before any work.

    Args:
        source: the digest of the slide's files (``slides.files.source_digest``).
        settings: as the user gave them, ``auto`` included.
        generator: the name and the sha256 of its weights; a bundle may lie anywhere.
    """
    found = _effective(settings) | {"generator": generator, "source": source}
    del found["generator.name"]
    if settings.tissue.source not in ("auto", "none"):
        found["tissue.source"] = _file_sha256(Path(settings.tissue.source))
    return found


def settled(asked: Fingerprint, *, halo_px: int, batch_size: int | str, computation: Mapping[str, str]) -> Fingerprint:
    """``asked`` with what ``auto`` has become, for a run that continues another: it must compute in the same way.

    The version of wsi-ihc is part of it here, because one output must not mix the pixels of two versions. A batch
    leaves it out, so that an update does not convert a whole cohort again.
    """
    chosen = {f"compute.{name}": value for name, value in computation.items()}
    return {
        **asked,
        **chosen,
        "compute.batch_size": batch_size,
        "tiling.halo_px": halo_px,
        "version": version("wsi-ihc"),
    }


def digest(found: Fingerprint) -> str:
    """SHA-256, as hex digits; equal for equal fingerprints."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def differences(before: Fingerprint, now: Fingerprint) -> list[str]:
    """The changes in words. A setting that did not exist before had the value that is its default today."""
    defaults = _effective(ConversionSettings())
    changed = ((key, before.get(key, defaults.get(key)), value) for key, value in now.items())
    return [_difference(key, old, new) for key, old, new in changed if old != new]


def _difference(key: str, old: Any, new: Any) -> str:
    match key:
        case "source":
            return "the slide has changed"
        case "generator":
            return "the generator has changed"
        case "tissue.source" if _is_sha256(old) and _is_sha256(new):
            return "the outlines of the tissue have changed"
    return f"{key} was {_short(old)}, is {_short(new)}"


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"


def _effective(settings: ConversionSettings) -> dict[str, Any]:
    """The settings that the pixels depend on, ``section.key`` to value."""
    dumped = settings.model_dump(mode="json")
    flat = {f"{section}.{key}": value for section, values in dumped.items() for key, value in values.items()}
    return {key: value for key, value in flat.items() if _matters(key)}


def _matters(key: str) -> bool:
    return key in _WITH_EFFECT or not (key.startswith(_SECTIONS_WITHOUT_EFFECT) or key in _WITHOUT_EFFECT)


def _file_sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return f"unreadable: {error.strerror}"  # the conversion says what is wrong with it
