"""Encoded tiles that were served lately."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock


class EncodedTiles:
    """The tiles asked for last, up to ``limit`` bytes. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._tiles: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """The tile of ``key``, made outside the lock where it is not held."""
        with self._lock:
            if key in self._tiles:
                self._tiles.move_to_end(key)
                return self._tiles[key]
        data = make()
        with self._lock:
            self._held += len(data) - len(self._tiles.pop(key, b""))
            self._tiles[key] = data
            while self._held > self._limit:
                self._held -= len(self._tiles.popitem(last=False)[1])
        return data
