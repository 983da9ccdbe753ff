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

DEFLATE_LEVEL = 4
"""Higher levels cost twice the time for less than a per cent on stained tissue behind the predictor."""


def halve(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The next coarser level: (2h, 2w, 3) to (h, w, 3), each pixel the mean of 2x2, halves rounded up.

    OpenCV's area filter is ``(a + b + c + d + 2) >> 2`` at exactly this factor.
    """
    height, width = pixels.shape[:2]
    if height % 2 or width % 2:
        raise ValueError(f"a plane of {height}x{width} px has no whole 2x2 cells; pad it first")
    return cast(NDArray[np.uint8], cv2.resize(pixels, (width // 2, height // 2), interpolation=cv2.INTER_AREA))


@dataclass(frozen=True)
class TileCodec:
    """How tiles are written: JPEG in YCbCr 4:2:0, or deflate without loss behind TIFF's horizontal predictor.

    4:2:0 because Bio-Formats reads 4:4:4 with wrong colours. Both release the GIL while they work.
    """

    compression: Compression = "jpeg"
    quality: int = 85
    side: int = 512

    def encode(self, pixels: NDArray[np.uint8]) -> bytes:
        """The bytes of a tile (side, side, 3); white has its own short form."""
        if pixels[0, 0].min() == 255 and pixels.min() == 255:
            return self.white
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
    def white(self) -> bytes:
        """The tile of bare glass. Most of a slide is glass: its own Huffman table makes it 1.8 kB instead of 4.7."""
        return self._encode(np.full((self.side, self.side, 3), 255, np.uint8), optimize=True)

    def _encode(self, pixels: NDArray[np.uint8], *, optimize: bool = False) -> bytes:
        if pixels.shape != (self.side, self.side, 3) or pixels.dtype != np.uint8:
            raise ValueError(f"a tile is ({self.side}, {self.side}, 3) uint8, not {pixels.shape} {pixels.dtype}")
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
