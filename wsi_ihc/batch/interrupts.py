"""Ctrl-C, a queue's SIGTERM and a closed terminal: noted when they come, answered where it is safe."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Interrupts:
    """How often the end was asked for: once ends in good order, twice ends at once."""

    count: int = 0

    def check(self) -> None:
        """Raises KeyboardInterrupt when asked at least once."""
        if self.count:
            raise KeyboardInterrupt


@contextmanager
def noted_interrupts() -> Iterator[Interrupts]:
    """Notes signals, so that no exception comes between the start of a child and the record that it runs.

    A signal that is ignored (``nohup``, or a script's background) stays ignored here, but no longer by the system:
    our children would inherit that, and could not be stopped. Outside the main thread nothing is changed.
    """
    noted = Interrupts()
    before = {}

    def note(number: int, frame: object) -> None:
        noted.count += 1

    def ignore(number: int, frame: object) -> None:
        pass

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            ignored = signal.getsignal(number) is signal.SIG_IGN
            before[number] = signal.signal(number, ignore if ignored else note)
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
