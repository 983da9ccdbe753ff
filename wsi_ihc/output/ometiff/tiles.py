"""Verification of the pixels: every tile is there, decodes, is not black, and agrees with the level below it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import cv2
import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from wsi_ihc.errors import one_line
from wsi_ihc.machine.processors import processors
from wsi_ihc.output.ometiff.jpeg import JpegHeader, read_jpeg_header
from wsi_ihc.pyramid.levels import halve

JPEG = 7
_LOSSLESS = (1, 5, 8, 32773, 32946, 50000)
"""None, LZW, deflate under two numbers, PackBits, Zstandard."""
_YCBCR = 6
_SAMPLES_PER_LEVEL = 6
"""Tiles per level in a quick verification, half of them the largest: those hold tissue."""

_SMALL_TILE = 4096
"""Bytes; hardly more than a tile of glass."""

_BLUR = 8
"""Levels are compared by means over squares of this side: coding noise cancels, a damaged tile does not."""


@dataclass(frozen=True)
class TileLevel:
    """One level of a tiled RGB TIFF, its tiles by row and column. Threads may read from one descriptor at once.

    Tiles of JPEG are taken in the colours that they are stored in, mostly YCbCr: the way to RGB clips what lies outside
    the gamut, and what is clipped no longer agrees from level to level (11 grey levels for saturated noise, 4 without).
    """

    page: tifffile.TiffPage
    descriptor: int
    _repeated: dict[bytes, NDArray[np.uint8]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def side(self) -> int:
        return int(self.page.tilewidth)

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return -(-self.page.imagelength // self.page.tilelength), -(-self.page.imagewidth // self.page.tilewidth)

    def data(self, row: int, column: int) -> bytes:
        """The encoded bytes of a tile."""
        index = row * self.shape[1] + column
        return os.pread(self.descriptor, self.page.databytecounts[index], self.page.dataoffsets[index])

    def header(self, data: bytes) -> JpegHeader:
        return read_jpeg_header(data, self.page.jpegtables)

    def pixels(self, row: int, column: int) -> NDArray[np.uint8]:
        """The tile (side, side, 3) in the colours it is stored in, white beyond the level.

        Raises:
            ValueError: it does not decode to the tile that the directory promises.
        """
        height = min(self.side, self.page.imagelength - row * self.side)
        width = min(self.side, self.page.imagewidth - column * self.side)
        decoded = self._decoded(self.data(row, column), row * self.shape[1] + column)
        if (height, width) == decoded.shape[:2]:
            return decoded
        pixels = self.white()
        pixels[:height, :width] = decoded[:height, :width]
        return pixels

    def white(self) -> NDArray[np.uint8]:
        """What lies beyond the level, (side, side, 3)."""
        return np.full((self.side, self.side, 3), (255, 128, 128) if self._stored_as_ycbcr else 255, np.uint8)

    def is_black(self, pixels: NDArray[np.uint8]) -> bool:
        return not (pixels[..., 0] if self._stored_as_ycbcr else pixels).any()

    @property
    def _stored_as_ycbcr(self) -> bool:
        return self.page.compression == JPEG and self.page.photometric == _YCBCR

    def _decoded(self, data: bytes, index: int) -> NDArray[np.uint8]:
        """The whole tile; glass is one stream many times over, and decoded once."""
        if data in self._repeated:
            return self._repeated[data]
        decoded: NDArray[Any] | None
        if self.page.compression == JPEG:
            header = self.header(data)
            if (header.height, header.width, header.components) != (self.side, self.side, 3):
                raise ValueError(f"a JPEG of {header.width}x{header.height}, not a tile of {self.side}")
            space = "YCBCR" if self._stored_as_ycbcr else "RGB"
            decoded = imagecodecs.jpeg8_decode(data, tables=self.page.jpegtables, colorspace=space, outcolorspace=space)
        else:
            decoded, _, _ = self.page.decode(data, index)
        if decoded is None or decoded.dtype != np.uint8:
            raise ValueError("no pixels")
        pixels = decoded.reshape(decoded.shape[-3:])
        if len(data) < _SMALL_TILE and not self._repeated:
            self._repeated[data] = pixels
        return pixels

    @cached_property
    def tolerance(self) -> float:
        """How far a mean over 8x8 pixels may lie from the same mean on the next finer level, grey levels."""
        if self.page.compression in _LOSSLESS:
            return 2.0
        if self.page.compression != JPEG:
            return 12.0
        return 8.0 + 0.5 * self.header(self.data(0, 0)).step


def index_problems(levels: list[TileLevel], file_size: int) -> Iterator[str]:
    """Tiles that are absent, empty, outside the file, or do not look like what the directory says."""
    for number, level in enumerate(levels):
        absent = list(_absent_tiles(number, level, file_size))
        yield from absent
        if level.page.compression == JPEG and not absent:
            yield from _colour_problems(number, level)


def pixel_problems(levels: list[TileLevel], *, quick: bool) -> Iterator[str]:
    """Tiles that do not decode, are black, or differ from the mean of the finer level.

    All of them, each decoded once (depth first: memory holds one tile and a quarter per level and thread), or a
    sample of each level when ``quick``.
    """
    with ThreadPoolExecutor(min(8, processors())) as pool:
        for problems in pool.map(lambda walk: walk.problems(), _walks(levels, quick=quick)):
            yield from problems


@dataclass(frozen=True)
class _Walk:
    """A tile and everything under it down to level ``floor``."""

    levels: list[TileLevel]
    top: tuple[int, int, int]
    floor: int

    def problems(self) -> list[str]:
        found: list[str] = []
        self._visit(*self.top, found)
        return found

    def _visit(self, number: int, row: int, column: int, found: list[str]) -> NDArray[np.uint8] | None:
        """Checks the tile after its children; its pixels, or None where they cannot be had."""
        level = self.levels[number]
        rows, columns = level.shape
        if row >= rows or column >= columns:
            return level.white()
        name = f"level {number}, tile {row}, {column}"
        below = self._from_children(number, row, column, found) if number > self.floor else None
        try:
            pixels = level.pixels(row, column)
        except Exception as error:
            found.append(f"{name}: does not decode ({one_line(error)[:80]})")
            return None
        if level.is_black(pixels):
            found.append(f"{name}: all black")
        if below is not None:
            difference = _difference(pixels, below, self._common(number, row, column))
            if difference > max(level.tolerance, self.levels[number - 1].tolerance):
                found.append(f"{name}: differs from the level below it by {difference:.0f} grey levels")
        return pixels

    def _from_children(self, number: int, row: int, column: int, found: list[str]) -> NDArray[np.uint8] | None:
        side = self.levels[number].side
        half = side // 2
        pixels = np.empty((side, side, 3), np.uint8)
        complete = True
        for down, right in np.ndindex(2, 2):
            child = self._visit(number - 1, 2 * row + down, 2 * column + right, found)
            if child is None:
                complete = False
            else:
                pixels[down * half : (down + 1) * half, right * half : (right + 1) * half] = halve(child)
        return pixels if complete else None

    def _common(self, number: int, row: int, column: int) -> tuple[int, int]:
        """Height and width of the tile's part that both levels cover with whole pixels."""
        level, finer = self.levels[number], self.levels[number - 1]
        height = min(level.page.imagelength, finer.page.imagelength // 2) - row * level.side
        width = min(level.page.imagewidth, finer.page.imagewidth // 2) - column * level.side
        return min(level.side, height), min(level.side, width)


def _walks(levels: list[TileLevel], *, quick: bool) -> Iterator[_Walk]:
    """The work in pieces that threads can share."""
    top = len(levels) - 1
    if quick:
        for number, level in enumerate(levels):
            floor = max(0, number - 1)
            yield from (_Walk(levels, (number, *cell), floor) for cell in _sample(level) if number or top == 0)
        return
    # Enough subtrees to keep the threads busy, and few enough that decoding their roots twice costs nothing.
    split = max((number for number, level in enumerate(levels) if level.shape[0] * level.shape[1] >= 16), default=top)
    yield from (_Walk(levels, (split, row, column), 0) for row, column in np.ndindex(levels[split].shape))
    if split < top:
        yield from (_Walk(levels, (top, row, column), split) for row, column in np.ndindex(levels[top].shape))


def _sample(level: TileLevel) -> list[tuple[int, int]]:
    """Tiles spread over the level, and its largest."""
    counts = np.asarray(level.page.databytecounts)
    spread = np.linspace(0, len(counts) - 1, _SAMPLES_PER_LEVEL // 2).astype(int)
    largest = np.argsort(counts, kind="stable")[-(_SAMPLES_PER_LEVEL // 2) :]
    columns = level.shape[1]
    return [divmod(int(index), columns) for index in np.unique(np.concatenate([spread, largest]))]


def _difference(a: NDArray[np.uint8], b: NDArray[np.uint8], common: tuple[int, int]) -> float:
    """The largest difference of means over squares of 8 px, in the whole squares of the ``common`` part."""
    height, width = common[0] // _BLUR * _BLUR, common[1] // _BLUR * _BLUR
    if height <= 0 or width <= 0:
        return 0.0
    squares = (width // _BLUR, height // _BLUR)
    means = [cv2.resize(pixels[:height, :width], squares, interpolation=cv2.INTER_AREA) for pixels in (a, b)]
    return float(cv2.absdiff(*means).max())


def _absent_tiles(number: int, level: TileLevel, file_size: int) -> Iterator[str]:
    rows, columns = level.shape
    offsets, counts = level.page.dataoffsets, level.page.databytecounts
    if len(offsets) != rows * columns or len(counts) != rows * columns:
        yield f"level {number}: {len(offsets)} offsets and {len(counts)} byte counts for {rows * columns} tiles"
        return
    for index, (offset, count) in enumerate(zip(offsets, counts, strict=True)):
        name = f"level {number}, tile {index // columns}, {index % columns}"
        if count <= 0:
            yield f"{name}: absent; Bio-Formats shows it black"
        elif offset <= 0 or offset + count > file_size:
            yield f"{name}: lies outside the file, which is cut short"
        elif level.page.compression == JPEG and not _framed(level.descriptor, offset, count):
            yield f"{name}: not a whole JPEG stream"


def _framed(descriptor: int, offset: int, count: int) -> bool:
    start, end = os.pread(descriptor, 2, offset), os.pread(descriptor, 2, offset + count - 2)
    return start == b"\xff\xd8" and end == b"\xff\xd9"


def _colour_problems(number: int, level: TileLevel) -> Iterator[str]:
    """Streams and tags that name different colours: readers then disagree about the picture."""
    header = level.header(level.data(0, 0))
    if header.ycbcr is not None and header.ycbcr != (level.page.photometric == _YCBCR):
        yield f"level {number}: the JPEG's colour space is not the one its directory names"
    if level.page.photometric == _YCBCR:
        if header.sampling == (1, 1):
            yield f"level {number}: JPEG 4:4:4, which Bio-Formats and QuPath show in wrong colours"
        elif tuple(level.page.subsampling or (2, 2)) != header.sampling:
            yield f"level {number}: the JPEG's subsampling is not the one its directory names"
