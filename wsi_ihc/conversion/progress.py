"""Progress callbacks of a conversion. The command line draws a bar; callers may pass their own."""

from __future__ import annotations

from typing import Literal, Protocol

Stage = Literal["opening", "finding tissue", "calibrating", "staining", "writing", "checking", "measuring one batch"]
"""In this order; ``calibrating`` only for generators that need it, ``measuring one batch`` only for an estimate."""


class Progress(Protocol):
    """``convert_slide`` calls these methods from the thread that called it."""

    def stage(self, name: Stage) -> None:
        """A new stage has begun."""

    def start(self, done: int, total: int, megapixels: float) -> None:
        """Staining begins; an earlier run finished ``done`` of ``total`` blocks of ``megapixels`` each."""

    def advance(self, blocks: int) -> None:
        """``blocks`` more are finished."""


class Silence:
    """Says nothing."""

    def stage(self, name: Stage) -> None: ...

    def start(self, done: int, total: int, megapixels: float) -> None: ...

    def advance(self, blocks: int) -> None: ...
