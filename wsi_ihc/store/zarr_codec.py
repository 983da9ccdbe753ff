"""TileCodec as a codec of zarr: what lets zarr read the store. Imported only by who opens it with zarr."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, cast

from zarr.abc.codec import ArrayBytesCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.core.common import JSON
from zarr.registry import register_codec

from wsi_ihc.encoding import Compression, TileCodec

NAME = "wsi_ihc.tile"


@dataclass(frozen=True)
class TileBytes(ArrayBytesCodec):
    """A chunk is one encoded tile, byte for byte as it goes into the TIFF."""

    compression: Compression
    quality: int
    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        return cls(**cast(dict[str, JSON], data["configuration"]))  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, JSON]:
        return {"name": NAME, "configuration": {"compression": self.compression, "quality": self.quality}}

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return chunk_spec.prototype.nd_buffer.from_numpy_array(self._codec(chunk_spec).decode(chunk_bytes.to_bytes()))

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        return chunk_spec.prototype.buffer.from_bytes(self._codec(chunk_spec).encode(chunk_array.as_numpy_array()))

    def compute_encoded_size(self, input_byte_length: int, _chunk_spec: ArraySpec) -> int:
        raise NotImplementedError("the length of a tile depends on its pixels")

    def _codec(self, chunk_spec: ArraySpec) -> TileCodec:
        return TileCodec(self.compression, self.quality, chunk_spec.shape[0])


def register_tile_codec() -> None:
    """Makes the codec known to zarr; a second call changes nothing."""
    register_codec(NAME, TileBytes)
