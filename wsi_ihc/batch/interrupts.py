"""Ctrl-C, a queue's SIGTERM and a closed terminal, noted when they come and answered where it is safe."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Interrupts:
    """How often somebody has asked for the end: once is politely, more is at once."""

    count: int = 0

    def check(self) -> None:
        """Raises KeyboardInterrupt when asked at least once."""
        if self.count:
            raise KeyboardInterrupt


@contextmanager
def noted_interrupts() -> Iterator[Interrupts]:
    """Between starting a child and writing that it runs there must be no exception out of nowhere.

    A signal that is ignored (``nohup``) stays ignored. Outside the main thread nothing is changed.
    """
    noted = Interrupts()
    before = {}

    def note(number: int, frame: object) -> None:
        noted.count += 1

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
