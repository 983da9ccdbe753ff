"""tiffslide: a fallback for TIFFs that are not decoded directly, and a reader that ``--reader`` can choose."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import tifffile
import tiffslide
import zarr
from numpy.typing import NDArray
from tifffile import TiffFileError

from wsi_ihc.config import SlideSettings
from wsi_ihc.errors import UnreadableSlideError, UnsupportedSlideError, one_line
from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.slides import pixel_size
from wsi_ihc.slides.assembly import Pixels, padded
from wsi_ihc.slides.levels import check_plane, pyramid
from wsi_ihc.slides.reader import NotForThisReader, only_one, was_closed
from wsi_ihc.slides.tiff_chain import MOST_PAGES, main_chain

SCATTERED = ("ventana", "trestle", "leica")
"""Vendors, in OpenSlide's names, whose tiles overlap or lie in several areas of one image."""
_PROPERTIES = {"vendor": "vendor", "objective-power": "objective"}


class TiffSlideReader:
    """A slide read with tiffslide. It keeps no tiles, and tiles that were never scanned are black.

    Raises:
        NotForThisReader: not a TIFF that tiffslide can open.
        UnsupportedSlideError: the pixels are not 8-bit RGB.
    """

    name = "tiffslide"

    def __init__(self, path: Path, settings: SlideSettings) -> None:
        self.path: Path | None = path
        self.contents = only_one(settings)
        if (vendor := openslide.OpenSlide.detect_format(path)) in SCATTERED:
            raise NotForThisReader(f"it would lay the tiles of a slide of {vendor} side by side, where they overlap")
        try:
            _check_chain(path)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # tiffslide warns about metadata that it parses only in part
                self._slide = tiffslide.TiffSlide(path)
                self._planes = _rgb_planes(path, self._slide)
                facts = self._slide.properties
        except NotForThisReader:
            raise
        except UnsupportedSlideError:
            self._slide.close()
            raise
        except TiffFileError:
            raise NotForThisReader("no TIFF, or cut off before its first image") from None
        except Exception as error:  # tiffslide raises tifffile's, zarr's and its own errors
            raise NotForThisReader(one_line(error)) from error
        self.levels = pyramid([Size(*plane.shape[:2]) for plane in self._planes])
        check_plane(path, self.levels[0].size)
        stated = pixel_size.from_text(_text(facts, "mpp-x"), _text(facts, "mpp-y"))
        believed = pixel_size.settle(stated, settings.mpp)
        self.mpp = believed.mpp
        self.notices = believed.notices
        known = {name: text for key, name in _PROPERTIES.items() if (text := _text(facts, key))}
        self.properties: Mapping[str, str] = known | pixel_size.as_properties(stated)

    def read(self, region: Region, level: int = 0) -> NDArray[np.uint8]:
        planes = self._planes
        if not planes:
            raise was_closed(self.path)
        return padded(region, self.levels[level].size, lambda inside: self._read(inside, planes[level], level))

    def close(self) -> None:
        self._planes = []
        self._slide.close()

    def _read(self, region: Region, plane: zarr.Array[Any], level: int) -> Pixels:
        # tiffslide's read_region takes level 0 coordinates and rounds them to a different pixel of the level.
        rows, columns = region.slices
        try:
            return np.asarray(plane[rows, columns], np.uint8)
        except Exception as error:
            if not self._planes:
                raise was_closed(self.path) from None
            raise UnreadableSlideError(
                f"{self.path}: damaged at level {level}, near x {region.left}, y {region.top} ({one_line(error)})"
            ) from error


def _check_chain(path: Path) -> None:
    """Refuses a chain of pages that tifffile would follow for minutes, or for ever."""
    with tifffile.TiffFile(path) as tiff:
        if main_chain(tiff).goes_on:
            raise NotForThisReader(f"its list of pages is a circle or has more than {MOST_PAGES}")


def _rgb_planes(path: Path, slide: tiffslide.TiffSlide) -> list[zarr.Array[Any]]:
    """The zarr array of each level, (height, width, 3) uint8."""
    planes = []
    for level in range(slide.level_count):
        plane = slide.zarr_group[str(level)]
        if not isinstance(plane, zarr.Array) or plane.shape[2:] != (3,) or plane.dtype != np.uint8:
            found = f"{plane.dtype} {plane.shape}" if isinstance(plane, zarr.Array) else "no plane of pixels"
            raise UnsupportedSlideError(f"{path}: 8-bit brightfield RGB expected, found {found}")
        planes.append(plane)
    return planes


def _text(facts: Any, key: str) -> str | None:
    """A property as text: tiffslide returns numbers, and None for an unknown one."""
    value = facts.get(f"tiffslide.{key}")
    return None if value is None else str(value)
