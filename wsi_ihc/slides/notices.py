"""Notices: what a user should know about an output although nothing failed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

NoticeLevel = Literal["note", "warning"]


@dataclass(frozen=True, slots=True)
class Notice:
    """One statement about an input, or about how it was converted. It travels with the output."""

    code: str
    """The kind in one word, for programs: ``stain``, ``pixel-size``, ``reader``, …"""
    text: str
    """One line for people; it names what was seen and what was done about it."""
    level: NoticeLevel = "warning"
    """A ``warning`` doubts the output, and ``--strict`` refuses it; a ``note`` only informs."""

    def __str__(self) -> str:
        return self.text


def warnings_among(notices: Iterable[Notice]) -> tuple[Notice, ...]:
    """Those that doubt the output."""
    return tuple(notice for notice in notices if notice.level == "warning")
