"""Reading any rectangle from a level that comes in tiles, with the decoded tiles kept for the neighbours."""

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
    """Decoded tiles, the least recently used dropped first. Thread-safe.

    Memory bound: ``capacity`` bytes of pixels, and the tile in each caller's hands. Two threads that want the same
    absent tile at once both decode it; waiting for each other would cost more than that rare second decoding. Not so
    where a tile is larger than the capacity (a strip as high as the plane): one thread decodes, and the last tile
    stays, for everything else that is read lies in it too.

    Args:
        capacity: bytes.
        tile_bytes: of the largest tile.
    """

    def __init__(self, capacity: int, tile_bytes: int = 0) -> None:
        self._capacity = max(capacity, tile_bytes if capacity else 0)
        self._one_at_a_time = Lock() if 0 < capacity < tile_bytes else None
        self._tiles: OrderedDict[Hashable, Pixels | None] = OrderedDict()
        self._held = 0
        self._lock = Lock()

    def get(self, key: Hashable, decode: Callable[[], Pixels | None]) -> Pixels | None:
        """The tile under ``key``, decoded now if it is not held; None is a tile that was never scanned."""
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
    """The pixels of ``region`` from a ``plane`` cut into tiles of size ``tile``; white outside and where none is.

    ``fetch(row, column)`` gives a tile, at least as large as its part of the plane, or None. The result lies in
    ``memory`` when there is one.
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
    """The pixels of ``region``, where ``read`` is only ever asked for what lies inside the ``plane``; white outside."""
    inside = region.intersection(Region(0, 0, *plane))
    if inside == region and region.area:
        return read(region)
    pixels = np.full((*region.size, 3), WHITE, np.uint8)
    if inside.area:
        pixels[inside.relative_to(region).slices] = read(inside)
    return pixels


Fourth = Literal["unknown", "alpha", "premultiplied"]
"""What a fourth channel is: something the file does not name, opacity, or opacity that the colours hold already."""


def on_white(pixels: NDArray[np.uint8], fourth: Fourth = "alpha") -> Pixels:
    """(height, width, 3) RGB as it is; with opacity laid on white glass, for it is 0 where nothing was scanned."""
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
