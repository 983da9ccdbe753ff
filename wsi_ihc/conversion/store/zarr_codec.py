"""Lets zarr read a store: the parts of its shards as a zarr codec. Imported only by those who read with zarr."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import imagecodecs
import numpy as np
import zarr
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.core.common import JSON
from zarr.registry import register_codec

from wsi_ihc.conversion.store.planes import is_piece, piece_pixels
from wsi_ihc.pyramid.codecs import DeflateTiles
from wsi_ihc.pyramid.levels import Pixels

NAME = "wsi_ihc.tile"


def open_with_zarr(path: Path) -> zarr.Group:
    """The store at ``path``, read-only, also while a run writes to it. Absent tiles read as empty glass.

    ``["blocks"][row, column, part]`` is a tile, by row and column of its block and ``layout.parts``;
    ``["stained.3"]`` is level 3 of the layer ``stained``, once the run has made it.
    """
    register_codec(NAME, PartBytes)
    return zarr.open_group(path, mode="r", zarr_format=3)


@dataclass(frozen=True)
class PartBytes(ArrayBytesCodec):
    """A chunk is one encoded tile, byte for byte as the output holds it, or a piece of a patch with zeros around it."""

    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        return cls()

    def to_dict(self) -> dict[str, JSON]:
        return {"name": NAME, "configuration": {}}

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        found = _pixels(chunk_bytes.to_bytes(), chunk_spec.shape[-2])
        chunk = np.zeros(chunk_spec.shape, np.uint8)
        height, width, channels = found.shape
        chunk[..., :height, :width, :channels] = found
        return chunk_spec.prototype.nd_buffer.from_numpy_array(chunk)

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        raise NotImplementedError("stores are read-only for zarr; TileStore.put writes them")

    def compute_encoded_size(self, input_byte_length: int, _chunk_spec: ArraySpec) -> int:
        # zarr asks this of every codec, and plans without the length when it is refused.
        raise NotImplementedError("the length of a tile depends on its pixels")


def _pixels(data: bytes, side: int) -> Pixels:
    """A tile or a piece, (h, w, channels): its first bytes say which."""
    if is_piece(data):
        return piece_pixels(data)
    if data.startswith(b"\xff\xd8"):
        jpeg: Pixels = imagecodecs.jpeg8_decode(data)
        return jpeg.reshape(side, side, -1)
    channels = len(imagecodecs.deflate_decode(data)) // side**2
    return DeflateTiles(side=side, channels=channels, fill=(0,) * channels).decode(data)
