"""Runs a command in a child process, so that a crash in a library's C code is one clear line, not a dead terminal.

Slides come from strangers, the libraries that decode them are large and old, and those that run a generator use what
is new in a processor. The child does all the work with the terminal it inherits; the parent only waits. Neither
outlives the other.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

import click

from wsi_ihc.machine.child import PROGRAM, SUPERVISED

CRASHED = 70
_PR_SET_PDEATHSIG = 1
_ONE_INTERRUPT_S = 0.5
"""Ctrl-C in a terminal reaches parent and child, and the parent hands it on: within this time it counts once."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What a user can do when the working process is lost."""

    crashed: str = "check the file"
    killed: str = "run the same command again"


def run_supervised(
    arguments: list[str],
    run: Callable[[list[str]], int],
    advice: Advice = Advice(),
    command: Sequence[str] = PROGRAM,
) -> int:
    """Calls ``run(arguments)`` in a child process and returns its exit code; 70 when a signal ended it.

    ``command`` is what starts the child: this program again, which then finds itself supervised.
    """
    if parent := os.environ.pop(SUPERVISED, None):
        _die_with_parent()
        if parent != str(os.getppid()):
            # Killed while this process was starting, before Linux could be asked. Whoever continues must find nobody.
            return 128 + signal.SIGKILL
        _count_an_interrupt_once()
        _leave(run(arguments))
    child = subprocess.Popen([*command, *arguments], env={**os.environ, SUPERVISED: str(os.getpid())})
    # Only the child, which knows what to save, answers them.
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: child.send_signal(number))
    code = child.wait()
    return code if code >= 0 else _explain_signal(-code, advice)


def _leave(code: int) -> NoReturn:
    """Ends the process. Taking down its libraries piece by piece takes a third of a second for nothing."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads any more
            stream.flush()
    os._exit(code)


def _count_an_interrupt_once() -> None:
    """The first SIGINT raises KeyboardInterrupt, and its echo does not disturb what that one has begun to save."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return  # ignored, as in a script's background
    last = float("-inf")

    def interrupt(number: int, frame: object) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if last - before > _ONE_INTERRUPT_S:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)


def _explain_signal(number: int, advice: Advice) -> int:
    if number == signal.SIGTERM:
        click.echo(f"wsi-ihc: terminated; {advice.killed}", err=True)
        return 128 + number
    reason = f"a library's own code crashed, on a damaged file or on this processor; {advice.crashed}"
    if number == signal.SIGKILL:
        reason = f"killed from outside, or by the system for want of memory; {advice.killed}"
    click.echo(f"wsi-ihc: the working process ended with {signal.Signals(number).name}: {reason}", err=True)
    return CRASHED


def _die_with_parent() -> None:
    """Asks Linux to end this process when its parent is killed, so that kill -9 leaves no orphan at work."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
