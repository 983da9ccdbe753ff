"""The pictures of a report: both sides as thumbnails, and fields at full size, as JPEG in the page itself."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.pyramid.pyramid import TilePyramid
from wsi_ihc.viewer.encoding import jpeg
from wsi_ihc.viewer.pictures import tile_counts

THUMBNAIL_PX = 440
"""Longer side of a thumbnail."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """Pixels of the page; encoded once the quality is known that fits."""

    pixels: Pixels

    @property
    def size(self) -> Size:
        return Size(*self.pixels.shape[:2])

    def data_uri(self, quality: int) -> str:
        return f"data:image/jpeg;base64,{base64.b64encode(jpeg(self.pixels, quality)).decode()}"


def shrunk(pixels: Pixels, longest: int = THUMBNAIL_PX) -> Pixels:
    """The picture reduced by area so that its longer side has ``longest`` pixels; as it is where it is smaller."""
    factor = longest / max(pixels.shape[:2])
    if factor >= 1:
        return pixels
    height, width = (max(1, round(side * factor)) for side in pixels.shape[:2])
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def whole_picture(pyramid: TilePyramid, longest: int = THUMBNAIL_PX) -> Pixels:
    """The whole of a pyramid, from its coarsest level that is not smaller than ``longest``."""
    large = [level for level, size in enumerate(pyramid.levels) if max(size) >= longest]
    level = large[-1] if large else 0
    return shrunk(read(pyramid, level, Region(0, 0, *pyramid.levels[level])), longest)


def read(pyramid: TilePyramid, level: int, region: Region) -> Pixels:
    """``region`` of a level, (height, width, 3), assembled from its tiles."""
    side = pyramid.codec.side
    rows, columns = tile_counts(pyramid.levels[level], 0, side)
    pixels = np.empty((*region.size, 3), np.uint8)
    for row in range(region.top // side, min(rows, -(-region.bottom // side))):
        for column in range(region.left // side, min(columns, -(-region.right // side))):
            tile = Region(row * side, column * side, side, side)
            common = region.intersection(tile)
            data = pyramid.tile(level, row, column)
            decoded = pyramid.codec.decode(data if data is not None else pyramid.codec.fill_tile)
            pixels[common.relative_to(region).slices] = decoded[common.relative_to(tile).slices]
    return pixels
