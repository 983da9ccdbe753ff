"""Whom a conversion tells how far it is. The command line draws a bar; a program may draw its own."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told by ``convert_slide``, from the thread that called it."""

    def stage(self, name: str) -> None:
        """A new stage has begun: ``reading``, ``finding tissue``, …"""

    def start(self, done: int, total: int, megapixels: float) -> None:
        """Staining begins; ``done`` of ``total`` blocks are there already, of ``megapixels`` each."""

    def advance(self, blocks: int) -> None:
        """``blocks`` more are finished."""


class Silence:
    """Says nothing."""

    def stage(self, name: str) -> None: ...

    def start(self, done: int, total: int, megapixels: float) -> None: ...

    def advance(self, blocks: int) -> None: ...
