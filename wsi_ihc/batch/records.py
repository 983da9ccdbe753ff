"""The state of each slide on disk: one small JSON file, whole or absent, that people and programs may read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from wsi_ihc.batch.search import LeftOut
from wsi_ihc.errors import StorageError
from wsi_ihc.machine.atomic import write_atomically
from wsi_ihc.machine.regular_files import read_regular

State = Literal["waiting", "running", "done", "failed"]

FOLDER = ".wsi-ihc"
_LEFT_OUT = "left-out"


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
    generator: str | None = None
    """Name of the generator that made the output."""
    mpp: float | None = None
    """Micrometres per pixel of the output."""
    tissue: float | None = None
    """Share of the plane that is tissue, 0 to 1."""
    warnings: tuple[str, ...] = ()
    """What a user should know about the output although nothing failed: one line each."""


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
            # By way of Python: pydantic's own JSON knows no names with bytes that are not UTF-8.
            return SlideRecord.model_validate(json.loads(read_regular(self.path(name))))
        except (OSError, ValueError, RecursionError, ValidationError):
            return None

    def write(self, name: str, record: SlideRecord) -> None:
        """Raises StorageError."""
        write_whole(self.path(name), json.dumps(record.model_dump(), indent=2) + "\n")

    def all(self) -> Iterator[tuple[str, SlideRecord]]:
        """Every slide of the folder, by name."""
        for path in sorted(self.folder.glob("*.json")):
            if record := self.read(path.name.removesuffix(".json")):
                yield path.name.removesuffix(".json"), record

    def outputs(self) -> frozenset[Path]:
        """Absolute paths of what was or will be made here."""
        return frozenset(Path(os.path.abspath(self.output / record.output)) for _, record in self.all())

    def write_left_out(self, command: Sequence[str], left_out: Sequence[LeftOut]) -> None:
        """Keeps what ``command`` has left out, in place of what it left out before.

        Raises:
            StorageError: it cannot be written.
        """
        name = hashlib.sha256("\0".join(command).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        path = self.folder / _LEFT_OUT / f"{name}.json"
        if left_out or path.exists():
            write_whole(path, json.dumps([[each.name, each.reason] for each in left_out], indent=2) + "\n")

    def left_out(self) -> tuple[LeftOut, ...]:
        """What all commands on this folder have left out, in order; without what has become a slide since."""
        found = set()
        for path in (self.folder / _LEFT_OUT).glob("*.json"):
            with suppress(OSError, ValueError, TypeError, RecursionError):
                found |= {LeftOut(str(name), str(reason)) for name, reason in json.loads(read_regular(path))}
        slides = [Path(record.slide) for _, record in self.all()] if found else []
        taken = {str(path) for slide in slides for path in (slide, *slide.parents)}
        return tuple(sorted(each for each in found if each.name not in taken))

    def is_writable(self) -> bool:
        """Whether the folder takes files: where it does, the trouble with a single file is that file's own."""
        probe = self.folder / ".probe"
        try:
            write_atomically(probe, b"x" * 4096)
            probe.unlink()
        except OSError:
            return False
        return True


def write_whole(path: Path, text: str) -> None:
    """The file appears or changes at once, and survives a power cut.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        write_atomically(path, text.encode("utf-8", "surrogateescape"))
    except StorageError as error:
        raise StorageError(f"{error}; run the same command again when it can, it continues") from None
