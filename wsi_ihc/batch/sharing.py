"""Relative paths for tables and pages, which are meant to be shared: they do not show the folders of a disk."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from wsi_ihc.batch.records import SlideRecord
from wsi_ihc.machine.text import printable


@dataclass(frozen=True)
class Places:
    """The folders of a cohort. Slides are shown relative to the folder that holds all of them."""

    slides: Path
    output: Path

    @classmethod
    def of(cls, records: Mapping[str, SlideRecord], output: Path) -> Places:
        """For the slides of ``records`` with outputs in ``output``."""
        folders = {os.path.dirname(record.slide) for record in records.values()}
        try:
            shared = Path(os.path.commonpath(folders))
        except ValueError:  # none, or absolute ones among relative ones
            shared = Path("/")
        return cls(shared, Path(os.path.abspath(output)))

    def slide(self, path: str) -> str:
        """``sub/a.svs`` for a slide below the shared folder; else its name and that of its folder."""
        found = Path(path)
        if len(self.slides.parts) > 1 and found.is_relative_to(self.slides) and found != self.slides:
            return printable(found.relative_to(self.slides))
        return printable("/".join(found.parts[-2:]).lstrip("/"))

    def text(self, text: str) -> str:
        """``text`` on one line, without the absolute folders of slides and outputs."""
        for folder in sorted({str(self.slides), str(self.output), str(self.output.parent)}, key=len, reverse=True):
            if len(Path(folder).parts) > 1:
                text = text.replace(f"{folder}/", "").replace(f"{printable(folder)}/", "")
        return printable(text)

    def reason(self, record: SlideRecord) -> str:
        """Why the slide is not done, without its own name."""
        return self.text(short_reason(record))


def short_reason(record: SlideRecord) -> str:
    """The reason without the slide's own path before it."""
    return record.reason.removeprefix(f"{record.slide}: ").removeprefix(f"{printable(record.slide)}: ")


def link(parts: Iterable[str]) -> str:
    """A relative address of the file that ``parts`` name, for a page; every byte of a name comes through."""
    return "/".join(urllib.parse.quote(os.fsencode(part)) for part in parts)
