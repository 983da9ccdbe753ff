"""The store's zarr side: a group of format 2 that any zarr reader opens as an ordinary pyramid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs.numcodecs
import numcodecs
import zarr

from wsi_ihc.encoding import DEFLATE_LEVEL
from wsi_ihc.store.layout import StoreLayout
from wsi_ihc.tiling import TILE_PX

PATCHES = "patches"
"""Array of the patch level without loss; one chunk is one block's patch."""

BLOCKS = "blocks"
"""Array with one chunk of one byte for every block: there when the block is finished."""

ATTRIBUTE = "wsi_ihc"
"""Name of the group's attribute that describes the store."""


def create_pyramid(path: Path, layout: StoreLayout, description: dict[str, Any]) -> None:
    """Writes the metadata of an empty pyramid at ``path``: arrays ``0``, ``1``, … and two for bookkeeping."""
    group = zarr.create_group(path, zarr_format=2, attributes={ATTRIBUTE: description})
    for level, size in enumerate(layout.levels):
        filters, compressor = _tile_codecs(layout)
        _create(group, str(level), (*size, 3), (TILE_PX, TILE_PX, 3), 255, filters, compressor)
    if layout.has_patches:
        size, side = layout.levels[layout.patch_level], layout.patch_px
        _create(group, PATCHES, (*size, 3), (side, side, 3), 255, None, numcodecs.Zstd(level=1))
    _create(group, BLOCKS, layout.grid, (1, 1), 0, None, None)


def open_pyramid(path: Path) -> zarr.Group:
    """The store as zarr sees it, read-only: ``open_pyramid(path)["0"][:512, :512]`` are RGB pixels."""
    imagecodecs.numcodecs.register_codecs(["imagecodecs_jpeg", "imagecodecs_delta"], force=True, verbose=False)
    return zarr.open_group(path, mode="r", zarr_format=2)


def chunk_key(array: str, row: int, column: int) -> str:
    """Path of a chunk inside the store. All chunks of a level share a folder: half the files of nested keys."""
    return f"{array}/{row}.{column}" if array == BLOCKS else f"{array}/{row}.{column}.0"


def _create(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    fill: int,
    filters: Any,
    compressor: Any,
) -> None:
    group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype="u1",
        fill_value=fill,
        filters=filters,
        compressors=compressor,
        chunk_key_encoding={"name": "v2", "separator": "."},
    )


def _tile_codecs(layout: StoreLayout) -> tuple[Any, Any]:
    """numcodecs' filters and compressor that decode what TileCodec encodes."""
    match layout.compression:
        case "jpeg":
            return None, imagecodecs.numcodecs.Jpeg(
                level=layout.quality, colorspace_data="rgb", colorspace_jpeg="ycbcr", subsampling="420"
            )
        case "deflate":
            predictor = imagecodecs.numcodecs.Delta(shape=(TILE_PX, TILE_PX, 3), dtype="u1", axis=-2)
            return [predictor], numcodecs.Zlib(level=DEFLATE_LEVEL)
