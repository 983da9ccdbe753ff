"""Tile codecs: they encode the pixels of one tile into the bytes that a file holds, and decode them again.

Each is a fixed function of the pixels: equal pixels give equal bytes, for every grid, worker and run. All of them
release the GIL while they encode and decode.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, cast

import imagecodecs
import numpy as np

from wsi_ihc.pyramid.levels import TILE_PX, Pixels

Compression = Literal["jpeg", "deflate"]
Colour = tuple[int, ...]
"""One value for each channel: red, green, blue in a layer of three."""
WHITE: Colour = (255, 255, 255)

DEFLATE_LEVEL = 4
"""Higher levels cost twice the time, and save less than one per cent on stained tissue behind the predictor."""


class TileCodec(Protocol):
    """How the tiles of a pyramid are encoded."""

    @property
    def side(self) -> int:
        """Width and height of a tile, pixels."""

    @property
    def channels(self) -> int:
        """Samples of a pixel."""

    @property
    def media_type(self) -> str | None:
        """The type by which a web browser takes an encoded tile as it is; None where browsers cannot show it."""

    @property
    def fill_tile(self) -> bytes:
        """The encoded tile of empty glass: it stands where a pyramid has no tile."""

    def encode(self, pixels: Pixels) -> bytes:
        """The bytes of a tile, from the part of it that lies on the plane: (h, w, channels), at most ``side`` squared.

        Beyond the plane the last row and column are repeated.
        """

    def decode(self, data: bytes) -> Pixels:
        """The tile (side, side, channels).

        Raises:
            ValueError: the bytes are not a whole tile of this codec.
        """

    def is_whole(self, data: bytes) -> bool:
        """Whether ``data`` begins and ends like a tile. Costs nothing; finds the empty files of a power cut."""


@dataclass(frozen=True, kw_only=True)
class _Tiles:
    """What the codecs share: tiles of one size, and a short form for a tile of one colour."""

    side: int = TILE_PX
    channels: int = 3
    fill: Colour = WHITE
    """Colour of empty glass."""

    def __post_init__(self) -> None:
        if len(self.fill) != self.channels:
            raise ValueError(f"{self.channels} channels need a fill of as many values, not {self.fill}")

    def encode(self, pixels: Pixels) -> bytes:
        if (pixels[0, 0] == self.fill).all() and (pixels == pixels[0, 0]).all():
            return self.fill_tile
        height, width = pixels.shape[:2]
        if (height, width) != (self.side, self.side):
            # JPEG shares colours among neighbours: white beyond the plane would bleed in.
            pixels = np.pad(pixels, ((0, self.side - height), (0, self.side - width), (0, 0)), mode="edge")
        return self._encode(pixels)

    @cached_property
    def fill_tile(self) -> bytes:
        return self._encode(self._filled())

    def _filled(self) -> Pixels:
        return np.full((self.side, self.side, self.channels), self.fill, np.uint8)

    def _encode(self, pixels: Pixels) -> bytes:
        raise NotImplementedError


@dataclass(frozen=True)
class JpegTiles(_Tiles):
    """Whole JFIF streams: YCbCr 4:2:0 for three channels, greyscale for one.

    4:2:0 because Bio-Formats reads 4:4:4 with wrong colours.
    """

    quality: int = 85

    @property
    def media_type(self) -> str | None:
        return "image/jpeg"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels not in (1, 3):
            raise ValueError(f"JPEG tiles have one or three channels, not {self.channels}; use deflate")

    def decode(self, data: bytes) -> Pixels:
        try:
            pixels = imagecodecs.jpeg8_decode(data).reshape(self.side, self.side, self.channels)
        except (imagecodecs.Jpeg8Error, ValueError) as error:
            raise ValueError(f"not a whole jpeg tile ({error})") from None
        return cast(Pixels, pixels)

    def is_whole(self, data: bytes) -> bool:
        return data[:2] == b"\xff\xd8" and data[-2:] == b"\xff\xd9"

    @cached_property
    def fill_tile(self) -> bytes:
        # Most of a slide is glass: a Huffman table of its own makes this tile 1.8 kB instead of 4.7.
        return self._encode(self._filled(), optimize=True)

    def _encode(self, pixels: Pixels, *, optimize: bool = False) -> bytes:
        colour = self.channels == 3
        data = imagecodecs.jpeg8_encode(
            pixels,
            level=self.quality,
            colorspace="rgb" if colour else None,
            outcolorspace="ycbcr" if colour else None,
            subsampling="420" if colour else None,
            optimize=optimize,
        )
        return bytes(data)


@dataclass(frozen=True)
class DeflateTiles(_Tiles):
    """Deflate behind TIFF's horizontal predictor: no loss, about six times the bytes of JPEG."""

    @property
    def media_type(self) -> str | None:
        return None

    def decode(self, data: bytes) -> Pixels:
        shape = (self.side, self.side, self.channels)
        try:
            raw = imagecodecs.deflate_decode(data, out=self.side * self.side * self.channels)
            pixels = imagecodecs.delta_decode(np.frombuffer(raw, np.uint8).reshape(shape), axis=-2)
        except (imagecodecs.DeflateError, ValueError) as error:
            raise ValueError(f"not a whole deflate tile ({error})") from None
        return cast(Pixels, pixels)

    def is_whole(self, data: bytes) -> bool:
        return data[:1] == b"\x78" and any(data[-4:])

    def _encode(self, pixels: Pixels) -> bytes:
        differences = imagecodecs.delta_encode(pixels, axis=-2)
        return bytes(imagecodecs.deflate_encode(differences.tobytes(), level=DEFLATE_LEVEL))
