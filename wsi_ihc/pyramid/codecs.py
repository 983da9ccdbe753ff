"""Pixels of one tile into the bytes that the TIFF will hold, and back; the 2x2 mean between levels.

Both are fixed functions of the pixels: equal pixels give equal bytes, whatever grid, worker or run made them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, cast

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray

Compression = Literal["jpeg", "deflate"]
Colour = tuple[int, int, int]
"""Red, green, blue."""
WHITE: Colour = (255, 255, 255)

DEFLATE_LEVEL = 4
"""Higher levels cost twice the time for less than a per cent on stained tissue behind the predictor."""


def halve(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The next coarser level of (h, w, 3): each pixel the mean of 2x2, halves rounded up.

    Where a side is odd its last row or column counts twice, and the result has (h + 1) // 2 or (w + 1) // 2 pixels:
    nothing foreign is mixed in at the edge of the slide. OpenCV's area filter is ``(a + b + c + d + 2) >> 2`` at
    exactly this factor.
    """
    height, width = pixels.shape[:2]
    if height % 2 or width % 2:
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    size = ((width + 1) // 2, (height + 1) // 2)
    return cast(NDArray[np.uint8], cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))


@dataclass(frozen=True)
class TileCodec:
    """How tiles are written: JPEG in YCbCr 4:2:0, or deflate without loss behind TIFF's horizontal predictor.

    4:2:0 because Bio-Formats reads 4:4:4 with wrong colours. Both release the GIL while they work.
    """

    compression: Compression = "jpeg"
    quality: int = 85
    side: int = 512
    glass: Colour = WHITE
    """What bare glass looks like: a tile of nothing else has a short form of its own."""

    def encode(self, pixels: NDArray[np.uint8]) -> bytes:
        """The bytes of a tile, from the part of it that lies on the plane: (h, w, 3), at most (side, side, 3).

        Beyond the plane its edge is repeated: JPEG shares colours among neighbours, and white would bleed in.
        """
        if (pixels[0, 0] == self.glass).all() and (pixels == pixels[0, 0]).all():
            return self.glass_tile
        height, width = pixels.shape[:2]
        if (height, width) != (self.side, self.side):
            pixels = np.pad(pixels, ((0, self.side - height), (0, self.side - width), (0, 0)), mode="edge")
        return self._encode(pixels)

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        """The tile (side, side, 3).

        Raises:
            ValueError: the bytes are not a whole tile of this codec.
        """
        try:
            match self.compression:
                case "jpeg":
                    pixels = imagecodecs.jpeg8_decode(data)
                case "deflate":
                    raw = imagecodecs.deflate_decode(data, out=self.side * self.side * 3)
                    differences = np.frombuffer(raw, np.uint8).reshape(self.side, self.side, 3)
                    pixels = imagecodecs.delta_decode(differences, axis=-2)
        except (imagecodecs.Jpeg8Error, imagecodecs.DeflateError, ValueError) as error:
            raise ValueError(f"not a whole {self.compression} tile ({error})") from None
        return cast(NDArray[np.uint8], pixels)

    def is_whole(self, data: bytes) -> bool:
        """Whether ``data`` begins and ends like a tile: a power cut leaves empty files and zeros. Costs nothing."""
        match self.compression:
            case "jpeg":
                return data[:2] == b"\xff\xd8" and data[-2:] == b"\xff\xd9"
            case "deflate":
                return data[:1] == b"\x78" and any(data[-4:])

    @cached_property
    def glass_tile(self) -> bytes:
        """The tile of bare glass. Most of a slide is glass: its own Huffman table makes it 1.8 kB instead of 4.7."""
        return self._encode(np.full((self.side, self.side, 3), self.glass, np.uint8), optimize=True)

    def _encode(self, pixels: NDArray[np.uint8], *, optimize: bool = False) -> bytes:
        match self.compression:
            case "jpeg":
                data = imagecodecs.jpeg8_encode(
                    pixels,
                    level=self.quality,
                    colorspace="rgb",
                    outcolorspace="ycbcr",
                    subsampling="420",
                    optimize=optimize,
                )
            case "deflate":
                differences = imagecodecs.delta_encode(pixels, axis=-2)
                data = imagecodecs.deflate_encode(differences.tobytes(), level=DEFLATE_LEVEL)
        return bytes(data)
