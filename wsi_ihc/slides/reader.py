"""What every slide reader offers: levels, pixel size, and one way to read pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.config import SlideSettings
from wsi_ihc.errors import UnreadableSlideError, UnsupportedSlideError
from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.slides.levels import Level

WHITE = 255
"""What lies outside the scan, and what was never scanned, reads as clean glass."""


OWN_VENDOR = "wsi-ihc"
"""Vendor of a slide that is an output of wsi-ihc, a virtual stain."""


class NotForThisReader(UnsupportedSlideError):
    """This reader cannot take the file, another may. The text is the reason alone; ``open_slide`` names the file."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One image of a file that could be read as the slide: a piece of tissue that was scanned for itself."""

    size: Size
    name: str = ""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file holds beside the image that is read. Scenes and planes are numbered from 1, as users count them."""

    scenes: tuple[Scene, ...] = ()
    """Empty for a file that can hold only one."""
    scene: int = 1
    planes: int = 1
    """Planes of focus of the scene."""
    plane: int = 1

    @property
    def notices(self) -> tuple[str, ...]:
        """What is left out, and how to choose it."""
        told = []
        if len(self.scenes) > 1:
            size = self.scenes[self.scene - 1].size
            told.append(
                f"scene {self.scene} of {len(self.scenes)} is read ({size.width} x {size.height} px); "
                "--scene chooses another"
            )
        if self.planes > 1:
            told.append(f"plane {self.plane} of {self.planes} is read; --plane chooses another")
        return tuple(told)


def middle(planes: int) -> int:
    """Number of the plane that is read where none is wanted: scanners put the sharp one in the middle."""
    return planes // 2 + 1


def only_one(settings: SlideSettings) -> Contents:
    """The contents of a file in which there is nothing to choose.

    Raises:
        NotForThisReader: something is to be chosen.
    """
    for what, number in (("scene", settings.scene), ("plane", settings.plane)):
        if number not in (None, 1):
            raise NotForThisReader(f"{what} {number} is wanted, it finds one")
    return Contents()


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
    contents: Contents
    """Scenes and planes of the file, and which are read."""
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
