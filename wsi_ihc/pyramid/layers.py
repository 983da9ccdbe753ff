"""Layers: the planes of pixels that an output holds, each a pyramid of its own on the same grid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from wsi_ihc.pyramid.codecs import WHITE, Colour, Compression, DeflateTiles, JpegTiles, TileCodec

STAINED = "stained"
"""Name of the layer that every output has: the virtual stain itself."""


@dataclass(frozen=True)
class Layer:
    """A plane of pixels and how its tiles are encoded. Plain values, which the store keeps as JSON."""

    name: str
    compression: Compression = "jpeg"
    quality: int = 85
    """Of JPEG."""
    channels: int = 3
    fill: Colour = WHITE
    """Value of empty glass, where nothing was stained or measured."""

    @cached_property
    def codec(self) -> TileCodec:
        match self.compression:
            case "jpeg":
                return JpegTiles(self.quality, channels=self.channels, fill=self.fill)
            case "deflate":
                return DeflateTiles(channels=self.channels, fill=self.fill)
