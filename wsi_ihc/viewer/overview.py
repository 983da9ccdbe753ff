"""The whole slide as one small array, read in the background: coarse tiles and the tissue come from it.

A slide with one level offers its overview only to those who read all of it. Nobody waits for that: what was read so
far can be shown at any time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.config import TissueSettings
from wsi_ihc.pyramid.geometry import Region
from wsi_ihc.slides import MemorySlide, SlideReader, SlideView
from wsi_ihc.tissue.finding import thumbnail_view

STRIP_PX = 32
"""Rows of the overview that are read at a time."""
UNREAD = 232
"""Grey of what was not read yet."""
STEPS = 25
"""Times that the picture on the screen is renewed while the overview is read."""


@dataclass
class Overview:
    """The slide at the resolution of a tissue mask, at most 5.5 Mpx.

    Memory bound: the array, 16 MB, and one strip of the slide.
    """

    view: SlideView
    pixels: NDArray[np.uint8] = field(repr=False)
    rows_read: int = 0

    @classmethod
    def of(cls, slide: SlideReader) -> Overview:
        view = thumbnail_view(slide, TissueSettings().mpp)
        return cls(view, np.full((*view.size, 3), UNREAD, np.uint8))

    @property
    def is_complete(self) -> bool:
        return self.rows_read >= self.view.size.height

    @property
    def share(self) -> float:
        """How much was read, 0 to 1."""
        return self.rows_read / self.view.size.height

    @property
    def step(self) -> int:
        """A number that grows while the overview is read; coarse tiles change with it."""
        return int(self.share * STEPS)

    def read(self, stop: Event) -> None:
        """Reads the slide strip by strip until all is read or ``stop`` is set.

        Raises:
            UnreadableSlideError: naming the file and the place that is damaged.
        """
        height, width = self.view.size
        for top in range(self.rows_read, height, STRIP_PX):
            if stop.is_set():
                return
            strip = Region(top, 0, min(STRIP_PX, height - top), width)
            self.pixels[strip.slices] = self.view.read(strip)
            self.rows_read = strip.bottom

    def resampled(self, region: Region, scale: float) -> NDArray[np.uint8]:
        """``region`` of the plane at ``scale`` level 0 pixels per pixel, from what was read so far."""
        factor = scale / self.view.scale
        if factor >= 1:
            return SlideView.reduced(MemorySlide(self.pixels), factor).read(region)
        # Finer than the overview: pixel centres of both planes on the same place of the glass.
        shift = (np.array([region.left, region.top]) + 0.5) * factor - 0.5
        matrix = np.array([[factor, 0, shift[0]], [0, factor, shift[1]]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size = (region.width, region.height)
        shown = cv2.warpAffine(self.pixels, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(shown, np.uint8)
