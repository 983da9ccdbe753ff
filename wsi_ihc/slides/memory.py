"""An array as a slide: for tests, and for pixels that come from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.pyramid.levels import halve
from wsi_ihc.slides.assembly import assemble
from wsi_ihc.slides.levels import pyramid
from wsi_ihc.slides.reader import Contents, was_closed


class MemorySlide:
    """A slide whose level 0 is ``pixels``, (height, width, 3) uint8 RGB, shared and not copied.

    Args:
        pixels: level 0.
        mpp: micrometres per pixel of level 0, or None when unknown.
        levels: number of levels; each pixel of a level is the mean of 2 x 2 pixels of the finer one.
        properties: facts about the scan, as a reader of files would give them.
        notices: warnings for the user about the pixels.
        path: the file that the pixels come from, if any.
        name: name of the reader that made the slide.

    Raises:
        ValueError: ``pixels`` has another shape or type, or no pixel.
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        *,
        mpp: float | None = None,
        levels: int = 1,
        properties: Mapping[str, str] | None = None,
        notices: tuple[str, ...] = (),
        path: Path | None = None,
        name: str = "memory",
    ) -> None:
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            raise ValueError(f"expected (height, width, 3) uint8, got {pixels.shape} {pixels.dtype}")
        self._planes = [pixels]
        while len(self._planes) < levels and min(self._planes[-1].shape[:2]) >= 2:
            self._planes.append(_halved(self._planes[-1]))
        self.levels = pyramid([Size(*plane.shape[:2]) for plane in self._planes])
        self.mpp = mpp
        self.contents = Contents()
        self.properties: Mapping[str, str] = dict(properties or {})
        self.notices = notices
        self.path = path
        self.name = name

    def read(self, region: Region, level: int = 0) -> NDArray[np.uint8]:
        planes, size = self._planes, self.levels[level].size
        if not planes:
            raise was_closed(self.path)
        return assemble(region, size, size, lambda row, column: planes[level])

    def close(self) -> None:
        self._planes = []


def _halved(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mean of 2 x 2 pixels; an odd last row or column is left out."""
    height, width = plane.shape[0] // 2, plane.shape[1] // 2
    return halve(plane[: 2 * height, : 2 * width])
