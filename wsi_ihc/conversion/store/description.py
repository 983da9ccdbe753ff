"""What a store was made from: written with it as JSON, and compared when a later run wants to continue it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wsi_ihc.conversion.store.files import storage_errors
from wsi_ihc.conversion.store.layout import StoreLayout
from wsi_ihc.conversion.store.metadata import ATTRIBUTE, METADATA


def describe(layout: StoreLayout, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """The description of a store, as it comes back from JSON: tuples are lists, keys are text."""
    plain: dict[str, Any] = json.loads(json.dumps({"layout": asdict(layout), "fingerprint": dict(fingerprint)}))
    return plain


def read_description(path: Path) -> dict[str, Any] | None:
    """The description of the store at ``path``; None when there is none that can be read.

    Raises:
        StorageError: the disk refuses.
    """
    with storage_errors(path):
        try:
            description = json.loads((path / METADATA).read_bytes())["attributes"][ATTRIBUTE]
            StoreLayout.from_json(description["layout"])
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            return None
    return description if isinstance(description, dict) else None


def differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    """One line for every value that changed, by its dotted name."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new) and any(map(_is_nested, new)):
        for number, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from differences(before, after, f"{name}[{number}]")
    elif old != new:
        yield f"{name} changed from {_short(old)} to {_short(new)}"


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict | list)


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
