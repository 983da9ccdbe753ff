"""The tiles of a TIFF's levels as verification sees them, and whether its directories describe them rightly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from wsi_ihc.output.ometiff.jpeg import JpegHeader, read_jpeg_header
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.pyramid.levels import Pixels, tile_grid

JPEG = 7
_LOSSLESS = (1, 5, 8, 32773, 32946, 50000)
"""None, LZW, deflate under two numbers, PackBits, Zstandard."""
_YCBCR = 6
_SMALL_TILE = 4096
"""Bytes; hardly more than a tile of glass."""


@dataclass(frozen=True)
class TileLevel:
    """One level of a tiled TIFF, its tiles by row and column. Threads may read from one descriptor at once.

    JPEG tiles are compared in the colour space in which they are stored, mostly YCbCr. Conversion to RGB would clip
    values outside the gamut, and then levels agree less (within 11 grey levels for saturated noise, 4 without it).
    """

    page: tifffile.TiffPage
    descriptor: int
    _repeated: dict[bytes, Pixels] = field(default_factory=dict, repr=False, compare=False)

    @property
    def side(self) -> int:
        return int(self.page.tilewidth)

    @property
    def size(self) -> Size:
        return Size(self.page.imagelength, self.page.imagewidth)

    @cached_property
    def grid(self) -> Size:
        """Rows and columns of tiles."""
        return tile_grid(self.size, self.side)

    @property
    def channels(self) -> int:
        return int(self.page.samplesperpixel)

    def data(self, row: int, column: int) -> bytes:
        """The encoded bytes of a tile."""
        index = row * self.grid.width + column
        return os.pread(self.descriptor, self.page.databytecounts[index], self.page.dataoffsets[index])

    def header(self, data: bytes) -> JpegHeader:
        return read_jpeg_header(data, self.page.jpegtables)

    def pixels(self, row: int, column: int) -> Pixels:
        """The tile (side, side, channels) in the colours it is stored in, white beyond the level.

        Raises:
            ValueError: it does not decode to the tile that the directory promises.
        """
        height = min(self.side, self.size.height - row * self.side)
        width = min(self.side, self.size.width - column * self.side)
        decoded = self._decoded(self.data(row, column), row * self.grid.width + column)
        if (height, width) == decoded.shape[:2]:
            return decoded
        pixels = self.white()
        pixels[:height, :width] = decoded[:height, :width]
        return pixels

    def white(self) -> Pixels:
        """A tile beyond the level, (side, side, channels)."""
        white = (255, 128, 128) if self._stored_as_ycbcr else 255
        return np.full((self.side, self.side, self.channels), white, np.uint8)

    def is_black(self, pixels: Pixels) -> bool:
        """Whether a picture is black; in a measured plane 0 is a value like any other."""
        if self.channels < 3:
            return False
        return not (pixels[..., 0] if self._stored_as_ycbcr else pixels).any()

    @property
    def _stored_as_ycbcr(self) -> bool:
        return self.page.compression == JPEG and self.page.photometric == _YCBCR

    def _decoded(self, data: bytes, index: int) -> Pixels:
        """The whole tile; glass is one stream many times over, and decoded once."""
        if data in self._repeated:
            return self._repeated[data]
        decoded: NDArray[Any] | None
        if self.page.compression == JPEG:
            decoded = self._decoded_jpeg(data)
        else:
            decoded, _, _ = self.page.decode(data, index)
        if decoded is None or decoded.dtype != np.uint8:
            raise ValueError("no pixels")
        pixels: Pixels = (
            decoded.reshape(*decoded.shape[-3:-1], self.channels) if decoded.ndim > 2 else decoded[..., None]
        )
        if len(data) < _SMALL_TILE and not self._repeated:
            self._repeated[data] = pixels
        return pixels

    def _decoded_jpeg(self, data: bytes) -> NDArray[Any]:
        header = self.header(data)
        if (header.height, header.width, header.components) != (self.side, self.side, self.channels):
            raise ValueError(f"a JPEG of {header.width}x{header.height}, not a tile of {self.side}")
        space = None if self.channels == 1 else "YCBCR" if self._stored_as_ycbcr else "RGB"
        return imagecodecs.jpeg8_decode(data, tables=self.page.jpegtables, colorspace=space, outcolorspace=space)

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


def _absent_tiles(number: int, level: TileLevel, file_size: int) -> Iterator[str]:
    rows, columns = level.grid
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
    if level.channels == 3 and header.ycbcr is not None and header.ycbcr != (level.page.photometric == _YCBCR):
        yield f"level {number}: the JPEG's colour space is not the one its directory names"
    if level.page.photometric == _YCBCR:
        if header.sampling == (1, 1):
            yield f"level {number}: JPEG 4:4:4, which Bio-Formats and QuPath show in wrong colours"
        elif tuple(level.page.subsampling or (2, 2)) != header.sampling:
            yield f"level {number}: the JPEG's subsampling is not the one its directory names"
