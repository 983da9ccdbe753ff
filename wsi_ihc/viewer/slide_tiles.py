"""Tiles of any slide that the project reads, made when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.pyramid.levels import TILE_PX
from wsi_ihc.slides import SlideReader, SlideView
from wsi_ihc.viewer.encoding import jpeg
from wsi_ihc.viewer.overview import Overview
from wsi_ihc.viewer.pictures import level_count

LARGEST_REDUCTION = 8.0
"""A tile is read from the slide while it takes at most so many source pixels along its side for one of its own:
16 Mpx. Coarser ones come from the overview."""


@dataclass(frozen=True)
class SlideTiles:
    """JPEG tiles of ``slide``; see :class:`wsi_ihc.viewer.pictures.TileSource`.

    Level 0 is the slide's own. A coarser level is a level of the slide where one has exactly that resolution, else the
    next finer one reduced by area.
    """

    slide: SlideReader
    overview: Overview
    fingerprint: str
    """Of the file."""
    side: int = TILE_PX

    @property
    def size(self) -> Size:
        return self.slide.levels[0].size

    @cached_property
    def levels(self) -> int:
        return level_count(self.size, self.side)

    @property
    def version(self) -> str:
        waits = any(self._view(level) is None for level in range(self.levels))
        return f"{self.fingerprint}-{self.overview.step}" if waits else self.fingerprint

    def tile(self, level: int, row: int, column: int) -> bytes:
        region = Region(row * self.side, column * self.side, self.side, self.side)
        view = self._view(level)
        return jpeg(view.read(region) if view else self.overview.resampled(region, 2.0**level))

    def _view(self, level: int) -> SlideView | None:
        """The plane of ``level``; None where reading it takes too long."""
        scale = 2.0**level
        for index, own in enumerate(self.slide.levels):
            if own.downsample == scale:
                return SlideView(self.slide, own.size, None, scale, index, False)
        view = SlideView.reduced(self.slide, scale)
        return view if scale / self.slide.levels[view.level].downsample <= LARGEST_REDUCTION else None
