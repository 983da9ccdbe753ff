"""DICOM whole slides that OpenSlide and wsidicom refuse for their headers, decoded frame by frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.config import SlideSettings
from wsi_ihc.errors import SlideError, UnreadableSlideError, one_line
from wsi_ihc.machine.shared_file import SharedFile
from wsi_ihc.pyramid.geometry import Region
from wsi_ihc.slides import pixel_size
from wsi_ihc.slides.assembly import Pixels, TileCache, assemble
from wsi_ihc.slides.dicom_frames import decode, unwrapped
from wsi_ihc.slides.dicom_instance import Instance, read_instance, stated_width
from wsi_ihc.slides.dicom_order import goes_down_columns
from wsi_ihc.slides.dicom_series import series_of
from wsi_ihc.slides.levels import pyramid, shows_same_field
from wsi_ihc.slides.reader import Contents, NotForThisReader, was_closed


class DirectDicomReader:
    """The levels of one DICOM series, read with nothing but the facts that decoding needs.

    Memory bound: ``settings.cache_mb`` of decoded frames, the places of frames (16 bytes each) and one frame a thread.

    Raises:
        UnreadableSlideError: truncated.
        UnsupportedSlideError: not 8-bit RGB.
        NotForThisReader: no whole-slide image, or laid out in a way that is not decoded here.
    """

    name = "dicom-direct"

    def __init__(self, path: Path, settings: SlideSettings) -> None:
        self.path: Path | None = path
        series = series_of(path, settings.plane)
        self._instances, told_of_files = _levels(series.files, settings.plane if series.planes == 1 else None)
        base = self._instances[0]
        if settings.scene not in (None, 1):
            raise NotForThisReader("a series has one scene")
        series_has = series.planes > 1
        self.contents = Contents(
            planes=series.planes if series_has else base.planes, plane=series.plane if series_has else base.plane
        )
        spacings = [instance.spacing[0] if instance.spacing else None for instance in self._instances]
        self.levels = pyramid([instance.size for instance in self._instances], spacings)
        believed = pixel_size.settle(base.spacing, settings.mpp)
        self.mpp = believed.mpp
        self.notices: tuple[str, ...] = series.notices + told_of_files + self.contents.notices + believed.notices
        told = {"vendor": "dicom"} | ({"objective": base.objective} if base.objective else {})
        self.properties: Mapping[str, str] = told | pixel_size.as_properties(base.spacing)
        tile_bytes = max(3 * instance.tile.height * instance.tile.width for instance in self._instances)
        self._cache = TileCache(settings.cache_mb * 1_000_000, tile_bytes)
        self._files = [SharedFile(instance.file) for instance in self._instances]
        self._settle_order()

    def _settle_order(self) -> None:
        """Ask the pixels where the header does not say in which order the frames lie."""
        for level, instance in enumerate(self._instances):
            if instance.places is not None or instance.order != "unstated":
                continue
            down = goes_down_columns(instance.grid, partial(self._frame, level))
            self._instances[level] = replace(instance, order="columns" if down else "rows")
            if down:
                told = f"level {level}: the header places no frame; by their borders they go down the columns"
                self.notices = (*self.notices, told)

    def read(self, region: Region, level: int = 0) -> NDArray[np.uint8]:
        instance = self._instances[level]
        if not self._files:
            raise was_closed(self.path)

        def fetch(row: int, column: int) -> Pixels | None:
            return self._cache.get((level, row, column), partial(self._tile, level, row, column))

        return assemble(region, self.levels[level].size, instance.tile, fetch)

    def _tile(self, level: int, row: int, column: int) -> Pixels | None:
        frame = self._instances[level].frame(row, column)
        return None if frame is None else self._frame(level, frame)

    def _frame(self, level: int, frame: int) -> Pixels:
        instance = self._instances[level]
        files, (start, end) = self._files, map(int, instance.spans[frame])
        if not files:
            raise was_closed(self.path)
        data = files[level].read(start, end - start)
        try:
            content = data if instance.coding == "native" else unwrapped(data)
            return decode(content, instance.coding, instance.tile, instance.photometric, instance.planar)
        except Exception as error:  # each codec has its own exceptions, and every one means the same here
            raise UnreadableSlideError(
                f"{self.path}: damaged at level {level}, frame {frame + 1} of {instance.file.name} ({one_line(error)})"
            ) from error

    def close(self) -> None:
        self._files = []
        self._cache.clear()


def _levels(files: Sequence[Path], plane: int | None) -> tuple[list[Instance], tuple[str, ...]]:
    """The largest instance and those that show the same field smaller, finest first; and which files are left out.

    A damaged file only ends the reading where it is the only one, or where its header shows that it is the largest.
    """
    instances, refusals = _instances(files, plane)
    found = sorted(instances, key=lambda instance: -instance.size.width)
    widest = max(refusals, key=stated_width, default=None)
    if widest and (not found or stated_width(widest) > found[0].size.width):
        raise refusals[widest]
    if not found:
        raise NotForThisReader("the series has labels and overviews, but no slide")
    levels = found[:1]
    for instance in found[1:]:
        if shows_same_field(instance.size, levels[0].size) and instance.size.width < levels[-1].size.width:
            levels.append(instance)
    return levels, tuple(f"left out: {refusal}" for refusal in refusals.values())


def _instances(files: Sequence[Path], plane: int | None) -> tuple[list[Instance], dict[Path, SlideError]]:
    """The levels in ``files``, and why others cannot be read."""
    instances, refusals = [], {}
    for file in files:
        try:
            if instance := read_instance(file, plane):
                instances.append(instance)
        except SlideError as refusal:
            refusals[file] = refusal
    return instances, refusals
