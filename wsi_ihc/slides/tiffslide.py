"""tiffslide: a second opinion on TIFFs that are not decoded directly, and the reader that ``--reader`` can force."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tiffslide
import zarr
from numpy.typing import NDArray

from wsi_ihc.config import SlideSettings
from wsi_ihc.errors import UnreadableSlideError, UnsupportedSlideError
from wsi_ihc.geometry import Region, Size
from wsi_ihc.slides import pixel_size
from wsi_ihc.slides.assembly import Pixels, padded
from wsi_ihc.slides.reader import NotForThisReader, pyramid

_PROPERTIES = {"vendor": "vendor", "objective-power": "objective"}


class TiffSlideReader:
    """A slide through tiffslide. It keeps no tiles, and tiles that were never scanned are black in it.

    Raises:
        NotForThisReader: no TIFF that tiffslide knows.
        UnsupportedSlideError: not 8-bit RGB.
    """

    name = "tiffslide"

    def __init__(self, path: Path, settings: SlideSettings) -> None:
        self.path: Path | None = path
        try:
            self._slide = tiffslide.TiffSlide(path)
            sizes = [Size(height, width) for width, height in self._slide.level_dimensions]
            facts = self._slide.properties
        except Exception as error:  # tiffslide lets tifffile's, zarr's and its own errors through
            raise NotForThisReader(_one_line(error)) from error
        self.levels = pyramid(sizes)
        pixel_size.check_plane(path, self.levels[0].size)
        stated = pixel_size.from_text(_text(facts, "mpp-x"), _text(facts, "mpp-y"))
        believed = pixel_size.settle(stated, settings.mpp)
        self.mpp = believed.mpp
        self.notices = believed.notices
        told = {name: text for key, name in _PROPERTIES.items() if (text := _text(facts, key))}
        self.properties: Mapping[str, str] = told | pixel_size.as_properties(stated)
        self._require_rgb()

    def read(self, region: Region, level: int = 0) -> NDArray[np.uint8]:
        return padded(region, self.levels[level].size, lambda inside: self._read(inside, level))

    def close(self) -> None:
        self._slide.close()

    def _require_rgb(self) -> None:
        sample = self._slide.zarr_group["0"]
        assert isinstance(sample, zarr.Array)
        if sample.ndim != 3 or sample.shape[2] != 3 or sample.dtype != np.uint8:
            self.close()
            raise UnsupportedSlideError(
                f"{self.path}: 8-bit brightfield RGB expected, found {sample.dtype} of shape {sample.shape}"
            )

    def _read(self, region: Region, level: int) -> Pixels:
        # tiffslide rounds a level 0 position down to the level's pixels: ask for the first position that gives ours.
        base, size = self.levels[0].size, self.levels[level].size
        left = -(-region.left * base.width // size.width)
        top = -(-region.top * base.height // size.height)
        try:
            pixels = self._slide.read_region((left, top), level, (region.width, region.height), as_array=True)
        except Exception as error:
            raise UnreadableSlideError(
                f"{self.path}: damaged at level {level}, near x {left}, y {top} of level 0 ({_one_line(error)})"
            ) from error
        return np.asarray(pixels, np.uint8)


def _text(facts: Any, key: str) -> str | None:
    """A property as text: tiffslide gives numbers, and None for what it does not know."""
    value = facts.get(f"tiffslide.{key}")
    return None if value is None else str(value)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
