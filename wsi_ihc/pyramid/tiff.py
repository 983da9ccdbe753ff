"""Levels of a pyramid into a TIFF: the encoded tiles are copied as they are."""

from __future__ import annotations

from typing import Any

import tifffile

from wsi_ihc.pyramid.codecs import DeflateTiles, JpegTiles, TileCodec
from wsi_ihc.pyramid.pyramid import TilePyramid, level_tiles

REDUCED = 1
"""NewSubfileType of a level that is a smaller copy of another image."""


def write_level(tiff: tifffile.TiffWriter, pyramid: TilePyramid, level: int, *, mpp: float, **tags: Any) -> None:
    """Appends one level to ``tiff``; ``mpp`` is that of level 0.

    ``tags`` are further arguments of ``TiffWriter.write``. Memory bound: one tile.
    """
    codec, per_cm = pyramid.codec, 1e4 / mpp / 2**level
    if level:
        tags["subfiletype"] = REDUCED
    tiff.write(
        level_tiles(pyramid, level),
        shape=(*pyramid.levels[level], codec.channels) if codec.channels > 1 else pyramid.levels[level],
        dtype="uint8",
        tile=(codec.side, codec.side),
        planarconfig="contig" if codec.channels > 1 else None,
        resolution=(per_cm, per_cm),
        resolutionunit="centimeter",
        metadata=None,
        **_tags_of(codec),
        **tags,
    )


def _tags_of(codec: TileCodec) -> dict[str, Any]:
    """The tags that tell a reader how the tiles are encoded.

    Raises:
        ValueError: no TIFF can hold such tiles.
    """
    photometric = "rgb" if codec.channels == 3 else "minisblack"
    match codec:
        case JpegTiles(channels=3):
            return {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 2)}
        case JpegTiles():
            return {"compression": "jpeg", "photometric": photometric}
        case DeflateTiles():
            return {"compression": "adobe_deflate", "photometric": photometric, "predictor": True}
        case _:
            raise ValueError(f"a TIFF cannot hold tiles of {type(codec).__name__}")
