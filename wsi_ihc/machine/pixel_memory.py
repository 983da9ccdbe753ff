"""Memory for pixels that is used again: fresh memory costs a page fault for every 4 KiB, as much as reading it took."""

from __future__ import annotations

import math
import weakref

import numpy as np
from numpy.typing import NDArray


class PixelMemory:
    """Lends arrays, and uses their memory again once no reference to them or to a view of them is left. Thread-safe.

    Memory bound: what is in use at a time, and ``spare`` arrays of the size asked for last.
    """

    def __init__(self, spare: int = 4) -> None:
        self._free: list[bytearray] = []
        self._spare = spare

    def array(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """An array of ``shape`` with whatever was in it before."""
        memory = self._take(math.prod(shape))
        # Views refer to this array, not to the memory itself: when it dies, the last of them is gone.
        owner = np.frombuffer(memory, np.uint8)
        weakref.finalize(owner, self._give_back, memory).atexit = False
        return owner.reshape(shape)

    def _take(self, size: int) -> bytearray:
        # No lock: a thread that pops an element has it alone, and giving back may interrupt this very function.
        while self._free:
            try:
                memory = self._free.pop()
            except IndexError:
                break
            if len(memory) == size:
                return memory
        return bytearray(size)

    def _give_back(self, memory: bytearray) -> None:
        if len(self._free) < self._spare:
            self._free.append(memory)
