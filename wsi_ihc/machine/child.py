"""How this program starts itself as a child process, and how the child knows whether its parent lives."""

from __future__ import annotations

import os
import signal
import sys
import threading

# -P: a folder named wsi_ihc where the user happens to stand is not the package.
PROGRAM = (sys.executable, "-P", "-m", "wsi_ihc")
"""The beginning of the command line; the words after ``wsi-ihc`` follow."""

FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
"""Signals that say nothing about the work of the child: the same work may succeed next time."""

SUPERVISED = "WSI_IHC_SUPERVISED"
"""Variable of the environment with the process that supervises the child: it needs no other, and ends with that one."""


def describe_signal(number: int) -> str:
    """Why a child process was ended by this signal, as far as the signal tells."""
    name = signal.Signals(number).name
    if number in FROM_OUTSIDE:
        return f"{name}: ended from outside, or by the system because memory ran out"
    return f"{name}: a library crashed, on a damaged file or on this processor"


def end_with_parent() -> None:
    """In a process that multiprocessing has spawned: ends it when its parent ends, whenever and however that happens.

    A pool's process waits for work on a pipe that its siblings hold open, so that without this it would wait for ever.
    The parent's death closes another pipe, which no child holds, so it is seen even where it came first.
    """
    threading.Thread(target=_follow_parent, name="parent", daemon=True).start()


def _follow_parent() -> None:
    import multiprocessing  # what every command would pay for when it starts

    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
