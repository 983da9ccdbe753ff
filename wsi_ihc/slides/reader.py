"""What every slide reader offers: levels, pixel size, and one way to read pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.errors import UnreadableSlideError, UnsupportedSlideError
from wsi_ihc.pyramid.geometry import Region
from wsi_ihc.slides.levels import Level

WHITE = 255
"""What lies outside the scan, and what was never scanned, reads as clean glass."""


class NotForThisReader(UnsupportedSlideError):
    """This reader cannot take the file, another may. The text is the reason alone; ``open_slide`` names the file."""


class SlideReader(Protocol):
    """A slide open for reading.

    Level 0 comes first and is the finest. All coordinates are those of the scan's bounding box: (0, 0) is the pixel
    that QuPath shows as the origin. Readers do not pickle: another process opens the path again.
    """

    path: Path | None
    """Where it was opened from; None for a slide in memory."""
    name: str
    """Which reader this is: openslide, tiffslide, tiff, dicom, dicom-direct, image or memory."""
    levels: tuple[Level, ...]
    """Finest first; never a label, macro or thumbnail."""
    mpp: float | None
    """Micrometres per pixel of level 0; None when the file states none that can be true."""
    properties: Mapping[str, str]
    """Facts about the scan (vendor, objective, …), never about the patient, the user or the file."""
    notices: tuple[str, ...]
    """What a user should know: a fallback taken and why, a pixel size not believed."""

    def read(self, region: Region, level: int = 0) -> NDArray[np.uint8]:
        """Pixels of ``region`` (in pixels of ``level``) as (height, width, 3) RGB; white outside. Thread-safe.

        Raises:
            UnreadableSlideError: naming the file and the place that is damaged, or saying that it was closed.
        """

    def close(self) -> None:
        """Let go of the file: a later read raises, one that is under way may end. A second call does nothing."""


def was_closed(path: Path | None) -> UnreadableSlideError:
    """What a read after ``close`` raises."""
    return UnreadableSlideError(f"{path or 'slide in memory'}: cannot be read any more, it was closed")
