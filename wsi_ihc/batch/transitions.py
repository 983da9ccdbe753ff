"""How a slide's record changes: before its first attempt, when an attempt starts, and when it ends."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wsi_ihc.batch.children import Ending
from wsi_ihc.batch.cohort import Entry
from wsi_ihc.batch.decisions import Decision, finished_file
from wsi_ihc.batch.prefetch import source_bytes
from wsi_ihc.batch.recipe import Recipe, digest
from wsi_ihc.batch.records import SlideRecord
from wsi_ihc.conversion.account import RunAccount
from wsi_ihc.output.provenance import read_sidecar


def fresh(entry: Entry, folder: Path) -> SlideRecord:
    """Waiting, never attempted."""
    return SlideRecord(slide=str(entry.slide), output=entry.output(folder).name, source_bytes=source_bytes(entry.slide))


def blank(entry: Entry, folder: Path) -> SlideRecord:
    """Waiting, for a slide that cannot even be looked at."""
    return SlideRecord(slide=str(entry.slide), output=entry.output(folder).name)


def begun(record: SlideRecord, entry: Entry, recipe: Recipe, decision: Decision) -> SlideRecord:
    """Running in this process."""
    return _changed(
        record,
        slide=str(entry.slide),
        state="running",
        reason="",
        retry=True,
        recipe=dict(recipe),
        digest=digest(recipe),
        seconds=0.0 if decision.anew else record.seconds,
        replaces=decision.replaces,
        source_bytes=source_bytes(entry.slide),
        attempts=record.attempts + 1,
        process=os.getpid(),
        host=socket.gethostname(),
        started=_now(),
        ended=None,
        version=version("wsi-ihc"),
    )


def finished(record: SlideRecord, output: Path) -> SlideRecord:
    """Done, when the output and its sidecar are really there."""
    made = finished_file(output)
    if not made:
        return failed(record, Ending(False, f"{output.name}: ended well, but the output and its sidecar are not there"))
    record = described(record, output)
    return _changed(record, state="done", reason="", sha256=made["sha256"], replaces=None, ended=_now())


def described(record: SlideRecord, output: Path) -> SlideRecord:
    """With what the sidecar of ``output`` says of it: generator, scale, tissue and warnings."""
    sidecar = read_sidecar(output)
    made, run = _mapping(sidecar, "provenance"), _account(sidecar)
    return _changed(
        record,
        megapixels=run.megapixels or record.megapixels,
        generator=str(made["generator"]) if made.get("generator") else record.generator,
        mpp=_number(made.get("mpp")) or record.mpp,
        tissue=record.tissue if (share := _number(made.get("tissue_fraction"))) is None else share,
        warnings=tuple(map(str, run.warnings)),
    )


def failed(record: SlideRecord, ending: Ending) -> SlideRecord:
    """Ended without an output."""
    return _changed(record, state="failed", reason=ending.reason, retry=ending.retry, ended=_now())


def interrupted(record: SlideRecord, reason: str = "interrupted") -> SlideRecord:
    """It waits for the next run, which continues it."""
    return _changed(record, state="waiting", reason=reason, ended=_now())


def after(record: SlideRecord, seconds: float) -> SlideRecord:
    """With ``seconds`` more of work."""
    return _changed(record, seconds=round(record.seconds + seconds, 1))


def _account(sidecar: Mapping[str, Any]) -> RunAccount:
    try:
        return RunAccount.from_json(sidecar.get("run"))
    except ValueError:
        return RunAccount()


def _mapping(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = content.get(key)
    return found if isinstance(found, dict) else {}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _changed(record: SlideRecord, **update: Any) -> SlideRecord:
    return record.model_copy(update=update)


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
