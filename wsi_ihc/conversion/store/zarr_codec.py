"""What lets zarr read the store: its tiles as a codec. Imported only by who wants that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

import numpy as np
import zarr
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.core.common import JSON
from zarr.registry import register_codec

from wsi_ihc.conversion.store.layout import PIECE_PX
from wsi_ihc.conversion.store.pieces import is_piece, piece_pixels
from wsi_ihc.pyramid.codecs import Compression, TileCodec

NAME = "wsi_ihc.tile"


def open_with_zarr(path: Path) -> zarr.Group:
    """The store at ``path``, read-only, also while a run is at it. What is absent reads as white.

    ``["blocks"][row, column, part]`` is a tile of RGB pixels, by row and column of its block and ``layout.parts``.
    """
    register_codec(NAME, TileBytes)
    return zarr.open_group(path, mode="r", zarr_format=3)


@dataclass(frozen=True)
class TileBytes(ArrayBytesCodec):
    """A chunk is one encoded tile, byte for byte as it goes into the TIFF, or a piece of a patch, white around it."""

    compression: Compression
    quality: int
    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        return cls(**cast(dict[str, JSON], data["configuration"]))  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, JSON]:
        return {"name": NAME, "configuration": {"compression": self.compression, "quality": self.quality}}

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        data, shape = chunk_bytes.to_bytes(), chunk_spec.shape
        if is_piece(data):
            pixels = np.full(shape[-3:], 255, np.uint8)
            pixels[:PIECE_PX, :PIECE_PX] = piece_pixels(data)
        else:
            pixels = TileCodec(self.compression, self.quality, shape[-2]).decode(data)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(pixels.reshape(shape))

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        codec = TileCodec(self.compression, self.quality, chunk_spec.shape[-2])
        data = codec.encode(chunk_array.as_numpy_array().reshape(chunk_spec.shape[-3:]))
        return chunk_spec.prototype.buffer.from_bytes(data)

    def compute_encoded_size(self, input_byte_length: int, _chunk_spec: ArraySpec) -> int:
        # What zarr asks of a codec like this; it then plans without the length.
        raise NotImplementedError("the length of a tile depends on its pixels")
