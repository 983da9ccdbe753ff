"""How many processors this process may use, and how many of them are cores of their own."""

from __future__ import annotations

import os
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")


def processors() -> int:
    """CPUs this process may use; a scheduler, container or taskset may allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores() -> int:
    """Physical cores among ``processors``: arithmetic gains nothing from a second thread on a core.

    torch chooses as many threads when no environment variable says otherwise.
    """
    if not hasattr(os, "sched_getaffinity"):
        return processors()
    return len({_core_of(cpu) for cpu in os.sched_getaffinity(0)})


def _core_of(cpu: int) -> str:
    """The CPUs that share a core with ``cpu``, as Linux writes them."""
    try:
        return (_TOPOLOGY / f"cpu{cpu}/topology/thread_siblings_list").read_text(encoding="ascii").strip()
    except OSError:
        return str(cpu)
