"""Runs a command in a child process, so that a crash in a library's C code ends in one clear line.

Slides come from strangers, the libraries that decode them are large and old, and those that run a generator use the
newest instructions of a processor. The child does all the work and writes to the terminal; the parent only waits.
When one of them ends, the other ends too.
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

from wsi_ihc.machine.child import FROM_OUTSIDE, PROGRAM, SUPERVISED, describe_signal

CRASHED = 70
_PR_SET_PDEATHSIG = 1
_ASKED_TO_END: dict[int, str] = {signal.SIGTERM: "terminated", signal.SIGHUP: "its terminal was closed"}
_ONE_INTERRUPT_S = 0.5
"""Ctrl-C in a terminal reaches the child twice: directly, and through the parent. Within this time it counts once."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What the user can do when the child is lost."""

    crashed: str = "check the file"
    killed: str = "run the same command again"


def run_supervised(
    arguments: list[str],
    run: Callable[[list[str]], int],
    advice: Advice = Advice(),
    command: Sequence[str] = PROGRAM,
) -> int:
    """Calls ``run(arguments)`` in a child process and returns its exit code, or 70 when a signal ended it.

    ``command`` starts the child: this same program, which sees in its environment that it is the child.
    """
    if parent := os.environ.pop(SUPERVISED, None):
        _die_with_parent()
        if parent != str(os.getppid()):
            # The parent was killed while this process started, before Linux could be asked to end it too. The next run
            # of the same command must not meet a process that still writes.
            return 128 + signal.SIGKILL
        _count_an_interrupt_once()
        _leave(run(arguments))
    child = subprocess.Popen([*command, *arguments], env={**os.environ, SUPERVISED: str(os.getpid())})
    # The child knows what to save: only the child answers.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: child.send_signal(number))
    code = child.wait()
    return code if code >= 0 else _explain_signal(-code, advice)


def _leave(code: int) -> NoReturn:
    """Ends the process at once. An orderly shutdown of all libraries takes a third of a second and gains nothing."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # the reader of a pipe has left
            stream.flush()
    os._exit(code)


def _count_an_interrupt_once() -> None:
    """Makes the first SIGINT raise KeyboardInterrupt; its echo must not interrupt the saving that follows."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return  # ignored, as for a background job of a script
    last = float("-inf")

    def interrupt(number: int, frame: object) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if last - before > _ONE_INTERRUPT_S:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)


def _explain_signal(number: int, advice: Advice) -> int:
    if number in _ASKED_TO_END:
        with suppress(OSError):  # the terminal is gone
            click.echo(f"wsi-ihc: {_ASKED_TO_END[number]}; {advice.killed}", err=True)
        return 128 + number
    then = advice.killed if number in FROM_OUTSIDE else advice.crashed
    click.echo(f"wsi-ihc: the working process was lost, {describe_signal(number)}; {then}", err=True)
    return CRASHED


def _die_with_parent() -> None:
    """Asks Linux to end this process when its parent is killed, so that ``kill -9`` leaves no orphan."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
