"""Decides what a slide needs: a conversion and why, or nothing because it is done or has failed for good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from wsi_ihc.batch.recipe import Recipe, differences
from wsi_ihc.batch.records import SlideRecord
from wsi_ihc.output.contents import content_bytes
from wsi_ihc.output.names import OutputName
from wsi_ihc.output.provenance import read_sidecar

Action = Literal["convert", "keep", "adopt", "leave", "refuse"]


@dataclass(frozen=True)
class Decision:
    """``convert``: run it. ``keep``: done already. ``adopt``: done, but its batch died before it wrote so.

    ``leave``: failed before, and nothing has changed since. ``refuse``: an output is in the way that is not ours.
    """

    action: Action
    why: str = ""
    overwrite: bool = False
    """Replace the output that exists."""
    anew: bool = False
    """Nothing of earlier work can be used."""
    replaces: str | None = None
    """The sha256 of the output that exists and is to be replaced."""


def decide(
    output: Path, record: SlideRecord | None, recipe: Recipe, *, retry_failed: bool = False, overwrite: bool = False
) -> Decision:
    """Decides by the record of the slide, its output and the sidecar beside it."""
    attempted = record is not None and bool(record.recipe)
    changed = "; ".join(differences(record.recipe, recipe)) if record and attempted else ""
    if output.exists():
        made = finished_file(output)
        if record is None or not attempted:
            if overwrite:
                return Decision("convert", "replaces an output that no batch made", True, True, made.get("sha256"))
            return Decision("refuse", f"{output.name} exists and no batch made it; move it, or give --overwrite")
        return _with_output(record, made, changed, OutputName(output).store.exists(), overwrite, retry_failed)
    if record is None or not attempted:
        return Decision("convert")
    if changed:
        return Decision("convert", changed, anew=True)
    if _for_good(record) and not retry_failed:
        return Decision("leave", record.reason)
    if record.state == "done":
        return Decision("convert", "its output is gone", anew=True)
    return Decision("convert", "continues" if record.attempts else "")


def finished_file(output: Path) -> Mapping[str, Any]:
    """What the sidecar says about the file; empty when the two do not belong together."""
    stated = read_sidecar(output).get("file")
    try:
        agrees = isinstance(stated, dict) and stated["bytes"] == content_bytes(output) and bool(stated["sha256"])
    except (OSError, KeyError):
        return {}
    return stated if agrees and isinstance(stated, dict) else {}


def _with_output(
    record: SlideRecord, made: Mapping[str, Any], changed: str, store: bool, overwrite: bool, retry_failed: bool
) -> Decision:
    sha256 = made.get("sha256")
    if record.state == "done":
        if changed:
            return Decision("convert", changed, True, True, sha256)
        if sha256 is None:
            return Decision("convert", "its output and its sidecar do not agree", True, True)
        if sha256 == record.sha256:
            return Decision("keep")
        if overwrite:
            return Decision("convert", "replaces an output that no batch made", True, True, sha256)
        return Decision("keep", "its output was replaced by hand; it stays as it is, --overwrite replaces it")
    fresh = sha256 is not None and sha256 != record.replaces
    if fresh and not changed:
        # Named but not tidied up: the conversion itself finishes that.
        return Decision("convert", "continues") if store else Decision("adopt")
    if _for_good(record) and not changed and not retry_failed:
        return Decision("leave", record.reason)
    return Decision("convert", changed or "continues", True, bool(changed), sha256)


def _for_good(record: SlideRecord) -> bool:
    """Whether the slide itself is to blame, so that only another version of wsi-ihc could convert it."""
    return record.state == "failed" and not record.retry and record.version == version("wsi-ihc")
