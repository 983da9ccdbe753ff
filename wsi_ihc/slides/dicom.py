"""DICOM slides that OpenSlide refuses, read with wsidicom: concatenations, other transfer syntaxes and headers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import VLWholeSlideMicroscopyImageStorage
from wsidicom import WsiDicom

from wsi_ihc.config import SlideSettings
from wsi_ihc.errors import UnreadableSlideError, UnsupportedSlideError, one_line
from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.slides import pixel_size
from wsi_ihc.slides.assembly import Pixels, padded
from wsi_ihc.slides.dicom_series import Series, series_of
from wsi_ihc.slides.levels import check_plane, pyramid
from wsi_ihc.slides.reader import Contents, NotForThisReader, middle, only_one, was_closed


class DicomReader:
    """The whole-slide pyramid of one DICOM series.

    Raises:
        NotForThisReader: not a whole-slide series that wsidicom knows.
    """

    name = "dicom"

    def __init__(self, path: Path, settings: SlideSettings) -> None:
        self.path: Path | None = path
        series = series_of(path, settings.plane)
        files = series.files
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pydicom's, about formalities of the header
                self._slide = WsiDicom.open(list(files))
            levels = sorted(self._slide.pyramid, key=lambda level: level.level)
        except Exception as error:  # wsidicom's errors share no root with pydicom's
            raise NotForThisReader(_diagnosis(files[0]) or one_line(error)) from error
        self._closed = False
        self.contents = _contents(series, levels[0].focal_planes, settings)
        self._depth = sorted(levels[0].focal_planes)[self.contents.plane - 1] if series.planes == 1 else None
        self._indices = [level.level for level in levels]
        sizes = [Size(level.size.height, level.size.width) for level in levels]
        self.levels = pyramid(sizes, [level.mpp.width for level in levels])
        check_plane(path, self.levels[0].size)
        spacing = levels[0].mpp
        stated = (spacing.width, spacing.height)
        believed = pixel_size.settle(stated, settings.mpp)
        self.mpp = believed.mpp
        self.notices = series.notices + self.contents.notices + believed.notices
        self.properties: Mapping[str, str] = {"vendor": "dicom"} | pixel_size.as_properties(stated)

    def read(self, region: Region, level: int = 0) -> NDArray[np.uint8]:
        if self._closed:
            raise was_closed(self.path)
        return padded(region, self.levels[level].size, lambda inside: self._read(inside, level))

    def close(self) -> None:
        self._closed = True
        self._slide.close()

    def _read(self, region: Region, level: int) -> Pixels:
        corner, size = (region.left, region.top), (region.width, region.height)
        try:
            index = self._indices[level]
            pixels = np.asarray(self._slide.read_region(corner, index, size, z=self._depth, as_array=True))
        except Exception as error:
            if self._closed:
                raise was_closed(self.path) from None
            raise UnreadableSlideError(
                f"{self.path}: damaged at level {level}, near x {region.left}, y {region.top} ({one_line(error)})"
            ) from error
        if pixels.ndim != 3 or pixels.dtype != np.uint8:
            raise UnsupportedSlideError(
                f"{self.path}: 8-bit brightfield RGB expected, found {pixels.dtype} {pixels.shape}"
            )
        return pixels


def _contents(series: Series, depths: Sequence[float], settings: SlideSettings) -> Contents:
    """The focal planes, which lie in one file each or all in one file, and which of them is read.

    Raises:
        NotForThisReader: the wanted scene or plane does not exist.
    """
    if series.planes > 1:
        return Contents(planes=series.planes, plane=series.plane)
    if len(depths) < 2:
        return only_one(settings)
    plane = settings.plane or middle(len(depths))
    if plane > len(depths) or settings.scene not in (None, 1):
        raise NotForThisReader(f"the file has 1 scene and {len(depths)} planes")
    return Contents(planes=len(depths), plane=plane)


def _diagnosis(file: Path) -> str | None:
    """Why a header is not that of a whole-slide image; None where no reason is found."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(file, specific_tags=["SOPClassUID", "ImageType"], stop_before_pixels=True)
            role, kind = header.get("ImageType"), header.get("SOPClassUID", "of no SOP class")
    except Exception:
        return None
    if kind != VLWholeSlideMicroscopyImageStorage:
        return f"not a whole-slide image but {kind}"
    return None if role else "the header says nothing of the image's role, ImageType is missing"
