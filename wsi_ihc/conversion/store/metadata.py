"""The store's zarr side: a group of format 3, written without zarr, whose import takes a quarter of a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wsi_ihc.conversion.store.layout import StoreLayout
from wsi_ihc.pyramid.blocks import TILE_PX

BLOCKS = "blocks"
"""Array (rows and columns of blocks, parts, 512, 512, 3) of the tiles that blocks own; one shard is one block."""

ATTRIBUTE = "wsi_ihc"
"""Name of the group's attribute that describes the store."""

METADATA = "zarr.json"
"""Name of the file that tells zarr what a folder is."""

_SHARD = ".0.0.0.0"
_CHECKSUM = {"name": "crc32c"}


def create_group(path: Path, layout: StoreLayout, description: dict[str, Any]) -> None:
    """Writes the metadata of an empty store at ``path``: the blocks, and an array for every level that no block owns.

    ``blocks[row, column, part]`` is a tile, or a piece of the block's patch; ``layout.parts`` says which.
    """
    path.mkdir(parents=True)
    group = {"zarr_format": 3, "node_type": "group", "attributes": {ATTRIBUTE: description}}
    (path / METADATA).write_text(json.dumps(group, indent=1), encoding="utf-8")
    parts, tile = len(layout.parts), (TILE_PX, TILE_PX, 3)
    codec = {"name": "wsi_ihc.tile", "configuration": {"compression": layout.compression, "quality": layout.quality}}
    _create(path / BLOCKS, (*layout.grid, parts, *tile), (1, 1, parts, *tile), _sharding((1, 1, 1, *tile), codec))
    for level in range(layout.patch_level, len(layout.levels)):
        rows, columns = layout.tile_grid(level)
        shard = (rows * TILE_PX, columns * TILE_PX, 3)
        _create(path / str(level), (*layout.levels[level], 3), shard, _sharding(tile, codec))


def block_key(row: int, column: int) -> str:
    """Path of a block's shard inside the store. All shards share a folder: half the files of nested keys."""
    return f"{BLOCKS}/{row}.{column}{_SHARD}"


def block_at(name: str) -> tuple[int, int] | None:
    """Row and column of the block whose shard has this file name; None for any other file."""
    if not (name[0].isdigit() and name.endswith(_SHARD)):
        return None
    row, column = name.removesuffix(_SHARD).split(".")
    return int(row), int(column)


def level_key(level: int) -> str:
    """Path of a level that no block owns: all of it is one shard."""
    return f"{level}/0.0.0"


def _create(folder: Path, shape: tuple[int, ...], chunks: tuple[int, ...], sharding: dict[str, Any]) -> None:
    folder.mkdir()
    array = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
        "chunk_key_encoding": {"name": "v2", "configuration": {"separator": "."}},
        "fill_value": 255,
        "codecs": [sharding],
        "attributes": {},
    }
    (folder / METADATA).write_text(json.dumps(array, indent=1), encoding="utf-8")


def _sharding(part: tuple[int, ...], codec: dict[str, Any]) -> dict[str, Any]:
    configuration = {
        "chunk_shape": part,
        "codecs": [codec, _CHECKSUM],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, _CHECKSUM],
        "index_location": "end",
    }
    return {"name": "sharding_indexed", "configuration": configuration}
