"""The zarr metadata of a store: a group of format 3, written without zarr, whose import takes a quarter of a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wsi_ihc.conversion.store.layout import StoreLayout
from wsi_ihc.pyramid.levels import TILE_PX

BLOCKS = "blocks"
"""Array (block rows, block columns, parts, 512, 512, channels) of the tiles that blocks own; one shard is one block."""

ATTRIBUTE = "wsi_ihc"
"""Name of the group's attribute that describes the store."""

METADATA = "zarr.json"
"""Name of the file that tells zarr what a folder is."""

_SHARD = ".0.0.0.0"
_CHECKSUM = {"name": "crc32c"}
_CODEC = {"name": "wsi_ihc.tile", "configuration": {}}


def create_group(path: Path, layout: StoreLayout, description: dict[str, Any]) -> None:
    """Writes the metadata of an empty store at ``path``: the blocks, and the coarse levels of each layer.

    ``blocks[row, column, part]`` is a tile, or a piece of the block's patch; ``layout.parts`` says which. Every layer
    has as many parts. Where layers have different numbers of channels, the array has the largest.
    """
    path.mkdir(parents=True)
    group = {"zarr_format": 3, "node_type": "group", "attributes": {ATTRIBUTE: description}}
    (path / METADATA).write_text(json.dumps(group, indent=1), encoding="utf-8")
    parts = layout.shard_parts
    tile = (TILE_PX, TILE_PX, max(layer.channels for layer in layout.layers))
    _create(
        path / BLOCKS, (*layout.grid, parts, *tile), (1, 1, parts, *tile), (1, 1, 1, *tile), layout.layers[0].fill[0]
    )
    for layer in layout.layers:
        for level in layout.coarse_levels:
            rows, columns = layout.tile_grids[level]
            shape, channels = (*layout.levels[level], layer.channels), layer.channels
            shard = (rows * TILE_PX, columns * TILE_PX, channels)
            _create(path / _level_name(layer.name, level), shape, shard, (TILE_PX, TILE_PX, channels), layer.fill[0])


def block_key(row: int, column: int) -> str:
    """Path of a block's shard inside the store. All shards lie in one folder: half the files of nested keys."""
    return f"{BLOCKS}/{row}.{column}{_SHARD}"


def block_at(name: str) -> tuple[int, int] | None:
    """Row and column of the block whose shard has this file name; None for any other file."""
    if not (name[0].isdigit() and name.endswith(_SHARD)):
        return None
    row, column = name.removesuffix(_SHARD).split(".")
    return int(row), int(column)


def level_key(layer: str, level: int) -> str:
    """Path of a coarse level of a layer: all of it is one shard."""
    return f"{_level_name(layer, level)}/0.0.0"


def _level_name(layer: str, level: int) -> str:
    return f"{layer}.{level}"


def _create(folder: Path, shape: tuple[int, ...], shard: tuple[int, ...], part: tuple[int, ...], fill: int) -> None:
    folder.mkdir()
    sharding = {
        "chunk_shape": part,
        "codecs": [_CODEC, _CHECKSUM],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, _CHECKSUM],
        "index_location": "end",
    }
    array = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard}},
        "chunk_key_encoding": {"name": "v2", "configuration": {"separator": "."}},
        "fill_value": fill,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": {},
    }
    (folder / METADATA).write_text(json.dumps(array, indent=1), encoding="utf-8")
