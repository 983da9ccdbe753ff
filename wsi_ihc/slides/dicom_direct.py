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
    """The levels of one DICOM series; only the header fields that decoding needs are read.

    Memory bound: ``settings.cache_mb`` of decoded frames, the offsets of all frames (16 bytes each), and one frame per
    thread.

    Raises:
        UnreadableSlideError: a file is truncated.
        UnsupportedSlideError: the pixels are not 8-bit RGB.
        NotForThisReader: no whole-slide image, or a layout that this reader does not decode.
    """

    name = "dicom-direct"

    def __init__(self, path: Path, settings: SlideSettings) -> None:
        self.path: Path | None = path
        series = series_of(path, settings.plane)
        self._instances, file_notices = _levels(series.files, settings.plane if series.planes == 1 else None)
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
        self.notices: tuple[str, ...] = series.notices + file_notices + self.contents.notices + believed.notices
        facts = {"vendor": "dicom"} | ({"objective": base.objective} if base.objective else {})
        self.properties: Mapping[str, str] = facts | pixel_size.as_properties(base.spacing)
        tile_bytes = max(3 * instance.tile.height * instance.tile.width for instance in self._instances)
        self._cache = TileCache(settings.cache_mb * 1_000_000, tile_bytes)
        self._files = [SharedFile(instance.file) for instance in self._instances]
        self._settle_order()

    def _settle_order(self) -> None:
        """Finds the order of the frames from their pixels where the header does not state it."""
        for level, instance in enumerate(self._instances):
            if instance.places is not None or instance.order != "unstated":
                continue
            down = goes_down_columns(instance.grid, partial(self._frame, level))
            self._instances[level] = replace(instance, order="columns" if down else "rows")
            if down:
                notice = f"level {level}: the header places no frame; by their borders they go down the columns"
                self.notices = (*self.notices, notice)

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
        except Exception as error:  # each codec has exceptions of its own; here they all mean damage
            raise UnreadableSlideError(
                f"{self.path}: damaged at level {level}, frame {frame + 1} of {instance.file.name} ({one_line(error)})"
            ) from error

    def close(self) -> None:
        self._files = []
        self._cache.clear()


def _levels(files: Sequence[Path], plane: int | None) -> tuple[list[Instance], tuple[str, ...]]:
    """The levels, finest first: the largest instance and its reduced copies; and a notice for each file left out.

    A damaged file is left out, unless it is the only one or its header shows that it is the largest.

    Raises:
        SlideError: the refusal of that damaged file.
        NotForThisReader: the series has no level.
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
    """The levels in ``files``, and the error of each file that cannot be read."""
    instances, refusals = [], {}
    for file in files:
        try:
            if instance := read_instance(file, plane):
                instances.append(instance)
        except SlideError as refusal:
            refusals[file] = refusal
    return instances, refusals
