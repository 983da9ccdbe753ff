"""Slides that only OpenSlide reads: MIRAX, NDPI, Leica SCN, Ventana BIF, Hamamatsu VMS, Philips; and DICOM."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray

from wsi_ihc.config import SlideSettings
from wsi_ihc.errors import UnreadableSlideError
from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.slides import pixel_size
from wsi_ihc.slides.assembly import Pixels, TileCache, assemble, on_white, padded
from wsi_ihc.slides.dicom_series import Series, series_of
from wsi_ihc.slides.identify import is_dicom
from wsi_ihc.slides.levels import check_plane, pyramid
from wsi_ihc.slides.ndpi import ndpi_focal_offsets
from wsi_ihc.slides.reader import Contents, NotForThisReader, only_one, was_closed

PATCH = Size(1024, 1024)
"""The fixed patches in which a level of fractional downsample is read."""
OWN_CACHE_MB = 32
"""Megabytes for OpenSlide's own cache of tiles; more makes it no faster."""
_PROPERTIES = {"vendor": "vendor", "objective-power": "objective", "quickhash-1": "quickhash"}


class OpenSlideReader:
    """A slide read with libopenslide, cropped to the bounds of the scan.

    OpenSlide addresses every level in level 0 pixels, and interpolates where an address lies between two pixels of the
    level. A level with a fractional downsample is therefore read in fixed patches: a pixel never depends on the region
    that is read.

    Raises:
        NotForThisReader: unknown to OpenSlide, damaged, or a file of the slide is missing.
    """

    name = "openslide"

    def __init__(self, path: Path, settings: SlideSettings) -> None:
        self.path: Path | None = path
        file, series = _file(path)
        self.contents = _contents(path, settings)
        try:
            slide = openslide.OpenSlide(file)
        except openslide.OpenSlideUnsupportedFormatError:
            raise NotForThisReader("unknown format") from None
        except openslide.OpenSlideError as error:
            raise NotForThisReader(str(error).replace(f"Reading {file}: ", "")) from None
        for width, height in slide.level_dimensions:
            check_plane(path, Size(height, width))
        slide.set_cache(openslide.OpenSlideCache(OWN_CACHE_MB * 1_000_000))
        self._open: openslide.OpenSlide | None = slide
        facts = slide.properties
        self._bounds = _bounds(slide)
        self._downsamples = [float(downsample) for downsample in slide.level_downsamples]
        sizes = [_cropped(slide, level, self._bounds) for level in range(len(self._downsamples))]
        self.levels = pyramid(sizes, [series.spacings.get(size) for size in sizes])
        stated = pixel_size.from_text(facts.get("openslide.mpp-x"), facts.get("openslide.mpp-y"))
        believed = pixel_size.settle(stated, settings.mpp)
        self.mpp = believed.mpp
        self.notices = series.notices + self.contents.notices + believed.notices
        known = {name: facts[f"openslide.{key}"] for key, name in _PROPERTIES.items() if f"openslide.{key}" in facts}
        self.properties: Mapping[str, str] = known | pixel_size.as_properties(stated)
        self._patches = TileCache(settings.cache_mb * 1_000_000)

    def read(self, region: Region, level: int = 0) -> NDArray[np.uint8]:
        if self._open is None:
            raise was_closed(self.path)
        size = self.levels[level].size
        if self._downsamples[level].is_integer():
            return padded(region, size, lambda inside: self._read(inside, level))

        def fetch(row: int, column: int) -> Pixels | None:
            patch = Region(row * PATCH.height, column * PATCH.width, *PATCH).intersection(Region(0, 0, *size))
            return self._patches.get((level, row, column), lambda: self._read(patch, level))

        return assemble(region, size, PATCH, fetch)

    def close(self) -> None:
        # libopenslide crashes when a slide is closed while another thread reads it. So only this reference is dropped:
        # the slide closes with the last reference to it.
        self._open = None
        self._patches.clear()

    def _read(self, region: Region, level: int) -> Pixels:
        downsample = self._downsamples[level]
        left = self._bounds.left + round(region.left * downsample)
        top = self._bounds.top + round(region.top * downsample)
        slide = self._open
        if slide is None:
            raise was_closed(self.path)
        try:
            image = slide.read_region((left, top), level, (region.width, region.height))
        except (openslide.OpenSlideError, ValueError) as error:
            # After a failure OpenSlide repeats the same error for every read: only the first place is the damaged one.
            raise UnreadableSlideError(
                f"{self.path}: damaged at level {level}, near x {left}, y {top} of level 0 ({error})"
            ) from error
        return on_white(np.asarray(image))


def _file(path: Path) -> tuple[Path, Series]:
    """The file to open with OpenSlide, and the series where it is DICOM.

    For a DICOM folder this is any file of its series; OpenSlide finds the other files itself.

    Raises:
        NotForThisReader: OpenSlide would choose among files of one size.
    """
    if not (path.is_dir() or is_dicom(path)):
        return path, Series((path,))
    series = series_of(path)
    if series.repeated:
        raise NotForThisReader("several files of the series have one size")
    return (series.files[0] if path.is_dir() else path), series


def _contents(path: Path, settings: SlideSettings) -> Contents:
    """Scene and focal plane: OpenSlide shows all scenes in one image, and the focal plane of an NDPI nearest to 0.

    Raises:
        NotForThisReader: another scene or plane is wanted.
    """
    offsets = ndpi_focal_offsets(path)
    if len(offsets) < 2:
        return only_one(settings)
    plane = 1 + min(range(len(offsets)), key=lambda index: abs(offsets[index]))
    if settings.plane not in (None, plane) or settings.scene not in (None, 1):
        raise NotForThisReader(f"of the {len(offsets)} planes of this NDPI only plane {plane} can be read")
    return Contents(planes=len(offsets), plane=plane)


def _cropped(slide: openslide.OpenSlide, level: int, bounds: Region) -> Size:
    """Size of the part of a level that lies inside the bounds."""
    (base_width, base_height), (width, height) = slide.dimensions, slide.level_dimensions[level]
    return Size(
        max(1, round(height * bounds.height / base_height)),
        max(1, round(width * bounds.width / base_width)),
    )


def _bounds(slide: openslide.OpenSlide) -> Region:
    """Bounding box of the scan in OpenSlide's level 0 pixels; the whole level where the file states none."""
    width, height = slide.dimensions
    names = ("y", "x", "height", "width")
    try:
        stated = Region(*(int(slide.properties[f"openslide.bounds-{name}"]) for name in names))
    except (KeyError, ValueError):
        return Region(0, 0, height, width)
    bounds = stated.intersection(Region(0, 0, height, width))
    return bounds if bounds.area else Region(0, 0, height, width)
