"""The state of each slide on disk: one small JSON file, whole or absent, that people and programs may read."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from wsi_ihc.errors import StorageError

State = Literal["waiting", "running", "done", "failed"]

FOLDER = ".wsi-ihc"


class SlideRecord(BaseModel):
    """What became of one slide so far. Durations are measured; times of day are for people only, clocks may jump."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    slide: str
    output: str
    state: State = "waiting"
    reason: str = ""
    """Why it failed, or why it waits again: one line."""
    retry: bool = True
    """After a failure: whether the next run tries again unasked, because the machine was to blame and not the slide."""
    seconds: float = 0.0
    """Work so far on this recipe, attempts that were cut off included."""
    megapixels: float | None = None
    source_bytes: int = 0
    attempts: int = 0
    process: int | None = None
    host: str | None = None
    started: str | None = None
    ended: str | None = None
    recipe: dict[str, Any] = {}
    """Of the last attempt; empty before the first."""
    digest: str | None = None
    """Of the recipe."""
    sha256: str | None = None
    """Of the finished output, as its sidecar tells it."""
    replaces: str | None = None
    """While an older output is made anew: the sha256 of the old one."""
    version: str | None = None
    """Of wsi-ihc at the last attempt."""


@dataclass(frozen=True)
class Records:
    """The records below one output folder."""

    output: Path

    @property
    def folder(self) -> Path:
        return self.output / FOLDER

    def path(self, name: str, suffix: str = ".json") -> Path:
        """The slide's file of that kind: .json, .log, .jpg."""
        return self.folder / f"{name}{suffix}"

    def read(self, name: str) -> SlideRecord | None:
        """None when there is no record, or only a damaged one."""
        try:
            return SlideRecord.model_validate_json(self.path(name).read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, name: str, record: SlideRecord) -> None:
        """Raises StorageError."""
        write_whole(self.path(name), record.model_dump_json(indent=2) + "\n")

    def all(self) -> Iterator[tuple[str, SlideRecord]]:
        """Every slide of the folder, by name."""
        for path in sorted(self.folder.glob("*.json")):
            if record := self.read(path.name.removesuffix(".json")):
                yield path.name.removesuffix(".json"), record

    def outputs(self) -> frozenset[Path]:
        """Absolute paths of what was or will be made here."""
        return frozenset(Path(os.path.abspath(self.output / record.output)) for _, record in self.all())


def write_whole(path: Path, text: str) -> None:
    """The file appears or changes at once, and survives a power cut.

    Raises:
        StorageError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with temporary.open("w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(
            f"{path}: cannot be written ({error.strerror}); run the same command again when it can, it continues"
        ) from None
