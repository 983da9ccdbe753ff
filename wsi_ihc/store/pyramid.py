"""The store's zarr side: a group of format 3 whose arrays are the levels of an ordinary pyramid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_ihc.store.layout import StoreLayout
from wsi_ihc.tiling import TILE_PX

if TYPE_CHECKING:
    import zarr

PATCHES = "patches"
"""Array of the patch level without loss; one chunk is one block's patch."""

BLOCKS = "blocks"
"""Array with one chunk of one byte for every block: there when the block is finished."""

ATTRIBUTE = "wsi_ihc"
"""Name of the group's attribute that describes the store."""

METADATA = "zarr.json"
"""Name of the file that tells zarr what a folder is."""

_BYTES = {"name": "bytes"}
_CHECKSUM = {"name": "crc32c"}
_SHARD_INDEX = [{"name": "bytes", "configuration": {"endian": "little"}}, _CHECKSUM]


def create_pyramid(path: Path, layout: StoreLayout, description: dict[str, Any]) -> None:
    """Writes the metadata of an empty pyramid at ``path``: arrays ``0``, ``1``, … and two for bookkeeping.

    On the levels that blocks own a block's tiles are one shard; the tiles of the others lie in files of their own.
    The metadata are written without zarr, whose import would take a quarter of a second from every conversion.
    """
    path.mkdir(parents=True)
    group = {"zarr_format": 3, "node_type": "group", "attributes": {ATTRIBUTE: description}}
    (path / METADATA).write_text(json.dumps(group, indent=1), encoding="utf-8")
    for level, size in enumerate(layout.levels):
        chunk, codecs = TILE_PX, [_tile_codec(layout)]
        if level < layout.patch_level:
            chunk, codecs = layout.core_px >> level, [_sharding([*codecs, _CHECKSUM])]
        _create(path / str(level), (*size, 3), (chunk, chunk, 3), 255, codecs)
    if layout.has_patches:
        size, side = layout.levels[layout.patch_level], layout.patch_px
        _create(path / PATCHES, (*size, 3), (side, side, 3), 255, [_BYTES, _CHECKSUM])
    _create(path / BLOCKS, layout.grid, (1, 1), 0, [_BYTES])


def open_pyramid(path: Path) -> zarr.Group:
    """The store as zarr sees it, read-only: ``open_pyramid(path)["0"][:512, :512]`` are RGB pixels."""
    import zarr

    from wsi_ihc.store.zarr_codec import register_tile_codec

    register_tile_codec()
    return zarr.open_group(path, mode="r", zarr_format=3)


def chunk_key(array: str, row: int, column: int) -> str:
    """Path of a chunk inside the store. All chunks of a level share a folder: half the files of nested keys."""
    return f"{array}/{row}.{column}" if array == BLOCKS else f"{array}/{row}.{column}.0"


def _create(
    folder: Path, shape: tuple[int, ...], chunks: tuple[int, ...], fill: int, codecs: list[dict[str, Any]]
) -> None:
    folder.mkdir()
    array = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
        "chunk_key_encoding": {"name": "v2", "configuration": {"separator": "."}},
        "fill_value": fill,
        "codecs": codecs,
        "attributes": {},
    }
    (folder / METADATA).write_text(json.dumps(array, indent=1), encoding="utf-8")


def _tile_codec(layout: StoreLayout) -> dict[str, Any]:
    return {"name": "wsi_ihc.tile", "configuration": {"compression": layout.compression, "quality": layout.quality}}


def _sharding(codecs: list[dict[str, Any]]) -> dict[str, Any]:
    inner = {"chunk_shape": [TILE_PX, TILE_PX, 3], "codecs": codecs, "index_codecs": _SHARD_INDEX}
    return {"name": "sharding_indexed", "configuration": inner | {"index_location": "end"}}
