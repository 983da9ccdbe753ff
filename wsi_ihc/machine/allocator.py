"""Settings of the C library's memory allocator for a run. Only glibc has them."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping

# Constants of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8

_TOP_PAD_BYTES = 256 << 20
_PIXELS_BYTES = 1 << 20
"""A decoded tile of 512 px has 768 KiB: such memory is used again from block to block. A block's window has more."""


def tune_allocator() -> bool:
    """Reuse big activations instead of returning them to the kernel after every layer; True where it took effect.

    By default glibc maps new memory for each big array, and the page faults cost as much time as the convolutions. The
    price is 250 to 300 MB that stay with the process. There is one arena, or worker threads would not profit. Call it
    at a program's start: it changes the whole process.
    """
    return _set({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: _TOP_PAD_BYTES, _M_ARENA_MAX: 1})


def keep_memory_flat() -> bool:
    """Give every large array back to the kernel at once, and use the others' memory again; True where it took effect.

    For work without big activations. By default the threads' blocks leave holes in heaps that grow for hundreds of
    blocks: 200 MB more on a large slide than on a small one.
    """
    return _set({_M_MMAP_THRESHOLD: _PIXELS_BYTES, _M_ARENA_MAX: 1})


def _set(settings: Mapping[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    accepted = [mallopt(name, value) == 1 for name, value in settings.items()]
    return all(accepted)
