"""The protocol of all slide readers: levels, pixel size, and one way to read pixels."""

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
"""Value of pixels outside the scan, and of parts that were never scanned: clean glass."""

OWN_VENDOR = "wsi-ihc"
"""Vendor of a slide that is an output of wsi-ihc, a virtual stain."""


class NotForThisReader(UnsupportedSlideError):
    """This reader cannot open the file; another may. The text is only the reason: ``open_slide`` names the file."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One image of a file that could be read as the slide: a piece of tissue that was scanned separately."""

    size: Size
    name: str = ""


@dataclass(frozen=True, slots=True)
class Contents:
    """The scenes and focal planes of a file, and which are read. Numbers start at 1, as users count."""

    scenes: tuple[Scene, ...] = ()
    """Empty for a format that can hold only one scene."""
    scene: int = 1
    planes: int = 1
    """Number of focal planes of the scene."""
    plane: int = 1

    @property
    def notices(self) -> tuple[str, ...]:
        """A line each about scenes and focal planes that are not read, with the option that chooses another."""
        notices = []
        if len(self.scenes) > 1:
            size = self.scenes[self.scene - 1].size
            notices.append(
                f"scene {self.scene} of {len(self.scenes)} is read ({size.width} x {size.height} px); "
                "--scene chooses another"
            )
        if self.planes > 1:
            notices.append(f"plane {self.plane} of {self.planes} is read; --plane chooses another")
        return tuple(notices)


def middle(planes: int) -> int:
    """Number of the focal plane that is read by default: scanners put the sharp one in the middle."""
    return planes // 2 + 1


def only_one(settings: SlideSettings) -> Contents:
    """The contents of a file with one scene and one focal plane.

    Raises:
        NotForThisReader: the settings want another scene or plane.
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
    """The file or folder; None for a slide in memory."""
    name: str
    """Name of the reader: openslide, tiffslide, tiff, dicom, dicom-direct, image or memory."""
    levels: tuple[Level, ...]
    """Finest first; never a label, macro or thumbnail."""
    mpp: float | None
    """Micrometres per pixel of level 0; None where the file states none, or none that can be true."""
    contents: Contents
    """Scenes and focal planes of the file, and which are read."""
    properties: Mapping[str, str]
    """Facts about the scan (vendor, objective, …), never about the patient, the user or the file."""
    notices: tuple[str, ...]
    """Lines for the user: why another reader took over, why the stated pixel size is not used."""

    def read(self, region: Region, level: int = 0) -> NDArray[np.uint8]:
        """Pixels of ``region`` (in pixels of ``level``) as (height, width, 3) RGB; white outside. Thread-safe.

        Raises:
            UnreadableSlideError: the pixels are damaged (it names file and place), or the slide was closed.
        """

    def close(self) -> None:
        """Closes the file: later reads raise, a read in progress may finish. A second call does nothing."""


def was_closed(path: Path | None) -> UnreadableSlideError:
    """The error of a read after ``close``."""
    return UnreadableSlideError(f"{path or 'slide in memory'}: cannot be read any more, it was closed")
