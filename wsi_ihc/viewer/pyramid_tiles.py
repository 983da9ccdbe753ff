"""Tiles of a pyramid that is encoded already: an output on disk, or the store of a conversion that is still running."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.pyramid.pyramid import TilePyramid
from wsi_ihc.viewer.encoding import jpeg
from wsi_ihc.viewer.pictures import MEDIA_TYPE


@dataclass(frozen=True)
class PyramidTiles:
    """JPEG tiles of ``pyramid``; see :class:`wsi_ihc.viewer.pictures.TileSource`.

    A tile that is a JPEG already goes to the browser as it is stored; others are encoded when they are asked for.
    """

    pyramid: TilePyramid
    version: str

    @property
    def size(self) -> Size:
        return self.pyramid.levels[0]

    @property
    def levels(self) -> int:
        return len(self.pyramid.levels)

    @property
    def side(self) -> int:
        return self.pyramid.codec.side

    def tile(self, level: int, row: int, column: int) -> bytes:
        data = self.pyramid.tile(level, row, column)
        if data is None:
            return self._fill
        return data if self.pyramid.codec.media_type == MEDIA_TYPE else self._as_jpeg(data)

    @cached_property
    def _fill(self) -> bytes:
        data = self.pyramid.codec.fill_tile
        return data if self.pyramid.codec.media_type == MEDIA_TYPE else self._as_jpeg(data)

    def _as_jpeg(self, data: bytes) -> bytes:
        pixels = self.pyramid.codec.decode(data)
        return jpeg(pixels if pixels.shape[2] == 3 else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)))
