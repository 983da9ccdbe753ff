"""The C library's memory allocator, told to keep what the network will ask for again."""

from __future__ import annotations

import ctypes
import sys

# Constants of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8

_TOP_PAD_BYTES = 256 << 20


def tune_allocator() -> bool:
    """Reuse big activations instead of returning them to the kernel after every layer; True where it took effect.

    By default glibc maps each big array anew, and the page faults cost as much time as the convolutions. The price
    is 250 to 300 MB that stay with the process. One arena, or worker threads would not profit. Only glibc has these
    settings: elsewhere nothing happens. Meant for a program's start: it concerns the whole process.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    settings = {
        _M_MMAP_MAX: 0,
        _M_TRIM_THRESHOLD: 2**31 - 1,
        _M_TOP_PAD: _TOP_PAD_BYTES,
        _M_ARENA_MAX: 1,
    }
    accepted = [mallopt(name, value) == 1 for name, value in settings.items()]
    return all(accepted)
