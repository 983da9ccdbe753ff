"""Reads any rectangle from a level that is stored in tiles; decoded tiles are kept for the next rectangles."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from threading import Lock
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.machine.pixel_memory import PixelMemory
from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.slides.reader import WHITE

Pixels = NDArray[np.uint8]


class TileCache:
    """Decoded tiles; the least recently used one is dropped first. Thread-safe.

    Memory bound: ``capacity`` bytes of pixels, and one tile for each caller. Two threads that want the same tile at
    once may both decode it: that is rare, and cheaper than waiting for each other. A tile larger than the capacity (a
    strip as high as the plane) is decoded by one thread only and stays, because the next reads lie in it too.

    Args:
        capacity: bytes of decoded pixels to keep; 0 keeps none.
        tile_bytes: bytes of the largest decoded tile.
    """

    def __init__(self, capacity: int, tile_bytes: int = 0) -> None:
        self._capacity = max(capacity, tile_bytes if capacity else 0)
        self._one_at_a_time = Lock() if 0 < capacity < tile_bytes else None
        self._tiles: OrderedDict[Hashable, Pixels | None] = OrderedDict()
        self._held = 0
        self._lock = Lock()

    def get(self, key: Hashable, decode: Callable[[], Pixels | None]) -> Pixels | None:
        """The tile of ``key``; ``decode`` makes it where the cache lacks it. None means: never scanned."""
        if self._one_at_a_time is None:
            return self._get(key, decode)
        with self._one_at_a_time:
            return self._get(key, decode)

    def _get(self, key: Hashable, decode: Callable[[], Pixels | None]) -> Pixels | None:
        with self._lock:
            if key in self._tiles:
                self._tiles.move_to_end(key)
                return self._tiles[key]
        tile = decode()
        with self._lock:
            if key not in self._tiles:
                self._tiles[key] = tile
                self._held += _cost(tile)
            while self._held > self._capacity:
                _, dropped = self._tiles.popitem(last=False)
                self._held -= _cost(dropped)
        return tile

    def clear(self) -> None:
        """Forget every tile."""
        with self._lock:
            self._tiles.clear()
            self._held = 0


def _cost(tile: Pixels | None) -> int:
    """Bytes; an absent tile is counted as the entry that remembers it."""
    return 128 if tile is None else tile.nbytes


def assemble(
    region: Region,
    plane: Size,
    tile: Size,
    fetch: Callable[[int, int], Pixels | None],
    memory: PixelMemory | None = None,
) -> Pixels:
    """The (height, width, 3) pixels of ``region`` from a ``plane`` that is cut into tiles of size ``tile``.

    ``fetch(row, column)`` returns a tile, at least as large as its part of the plane, or None where there is no tile.
    Pixels outside the plane and without a tile are white. With ``memory`` the result is an array from it.
    """
    inside = region.intersection(Region(0, 0, *plane))
    pixels = memory.array((*region.size, 3)) if memory else np.empty((*region.size, 3), np.uint8)
    if inside != region:
        pixels.fill(WHITE)
    for row, column in _tiles_under(inside, tile):
        corner = Region(row * tile.height, column * tile.width, *tile)
        part = inside.intersection(corner)
        content = fetch(row, column)
        target = pixels[part.relative_to(region).slices]
        target[...] = WHITE if content is None else content[part.relative_to(corner).slices]
    return pixels


def _tiles_under(region: Region, tile: Size) -> Iterator[tuple[int, int]]:
    """Rows and columns of the tiles that ``region`` touches."""
    if region.area == 0:
        return
    for row in range(region.top // tile.height, -(-region.bottom // tile.height)):
        for column in range(region.left // tile.width, -(-region.right // tile.width)):
            yield row, column


def padded(region: Region, plane: Size, read: Callable[[Region], Pixels]) -> Pixels:
    """The pixels of ``region``: ``read`` gets the part inside the ``plane``, the rest is white."""
    inside = region.intersection(Region(0, 0, *plane))
    if inside == region and region.area:
        return read(region)
    pixels = np.full((*region.size, 3), WHITE, np.uint8)
    if inside.area:
        pixels[inside.relative_to(region).slices] = read(inside)
    return pixels


Fourth = Literal["unknown", "alpha", "premultiplied"]
"""Meaning of a fourth channel: not stated by the file, opacity, or opacity that is multiplied into the colours."""


def on_white(pixels: NDArray[np.uint8], fourth: Fourth = "alpha") -> Pixels:
    """(height, width, 3) RGB unchanged; RGB with opacity on white glass, as opacity is 0 where nothing was scanned."""
    if pixels.shape[2] == 3:
        return pixels
    rgb = cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB).astype(np.uint8, copy=False)
    clear = pixels[..., 3] < 255
    if fourth == "unknown" or not clear.any():
        return rgb
    weight = pixels[clear, 3:].astype(np.uint16)
    if fourth == "premultiplied":
        rgb[clear] = np.minimum(rgb[clear] + (WHITE - weight), WHITE)
    else:
        rgb[clear] = (rgb[clear] * weight + WHITE * (255 - weight) + 127) // 255
    return rgb
