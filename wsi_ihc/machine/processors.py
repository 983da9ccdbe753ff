"""How many processors this process may use."""

from __future__ import annotations

import os


def processors() -> int:
    """Those that it was given: a queue's job, a container or ``taskset`` may leave it a few of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
