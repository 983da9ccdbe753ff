"""Runs a command in a child process, so that a crash in a reader's C code is one clear line, not a dead terminal.

Slides come from strangers, and the libraries that decode them are large and old. The child does all the work with
the terminal it inherits; the parent only waits. Neither outlives the other.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

import click

from wsi_ihc.machine.child import PROGRAM, SUPERVISED

CRASHED = 70
_PR_SET_PDEATHSIG = 1


def run_supervised(arguments: list[str], run: Callable[[list[str]], int], command: Sequence[str] = PROGRAM) -> int:
    """Calls ``run(arguments)`` in a child process and returns its exit code; 70 when a signal ended it.

    ``command`` is what starts the child: this program again, which then finds itself supervised.
    """
    if parent := os.environ.pop(SUPERVISED, None):
        _die_with_parent()
        if parent != str(os.getppid()):
            # Killed while this process was starting, before Linux could be asked. Whoever continues must find nobody.
            return 128 + signal.SIGKILL
        _leave(run(arguments))
    child = subprocess.Popen([*command, *arguments], env={**os.environ, SUPERVISED: str(os.getpid())})
    # The terminal sends Ctrl-C to both processes; only the child, which knows what to save, answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: child.send_signal(number))
    code = child.wait()
    return code if code >= 0 else _explain_signal(-code)


def _leave(code: int) -> NoReturn:
    """Ends the process. Taking down its libraries piece by piece takes a third of a second for nothing."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads any more
            stream.flush()
    os._exit(code)


def _explain_signal(number: int) -> int:
    if number == signal.SIGTERM:
        click.echo("wsi-ihc: terminated; run the same command again, a conversion continues", err=True)
        return 128 + number
    reason = "a damaged file can crash a decoder's own code; check the file, or try another --reader"
    if number == signal.SIGKILL:
        reason = "killed from outside, or by the system for want of memory; run the same command again"
    click.echo(f"wsi-ihc: the working process ended with {signal.Signals(number).name}: {reason}", err=True)
    return CRASHED


def _die_with_parent() -> None:
    """Asks Linux to end this process when its parent is killed, so that kill -9 leaves no orphan at work."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
