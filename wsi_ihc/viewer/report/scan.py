"""One pass over the stained pixels: the read-out of the whole, of every field, and of every region."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.machine.processors import processors
from wsi_ihc.measures.readout import Readout, read_dab
from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.pyramid.pyramid import TilePyramid
from wsi_ihc.tissue import TissueMask
from wsi_ihc.viewer.pictures import tile_counts

FIELD_PX = 256
"""Side of a field, pixels of the output: 128 um at 0.5 um/px."""
GLASS_STEP = 12
"""Grey levels: a pixel that differs more from glass counts as tissue where the H&E cannot be asked."""


@dataclass(frozen=True)
class Field:
    """A square of the output and its read-out."""

    place: Region
    readout: Readout

    @property
    def tissue_share(self) -> float:
        return self.readout.pixels / self.place.area


@dataclass
class Scan:
    """What the pass found."""

    whole: Readout = field(default_factory=Readout)
    fields: list[Field] = field(default_factory=list)
    regions: dict[str, Readout] = field(default_factory=dict)


def scan(
    pyramid: TilePyramid, tissue: TissueMask | None, glass: tuple[int, int, int], regions: Mapping[str, TissueMask]
) -> Scan:
    """Reads every tile of level 0 that may hold tissue, once.

    ``tissue`` and ``regions`` are masks on the plane of level 0; without ``tissue`` everything counts that does not
    have the colour of ``glass``. Memory bound: one tile a thread, and 2 kB a field.
    """
    found = Scan(regions={name: Readout() for name in regions})
    size, side = pyramid.levels[0], pyramid.codec.side
    rows, columns = tile_counts(size, 0, side)
    cells = [(row, column) for row in range(rows) for column in range(columns)]

    def read(cell: tuple[int, int]) -> tuple[list[Field], dict[str, Readout]]:
        place = _inside(Region(cell[0] * side, cell[1] * side, side, side), size)
        if tissue is not None and tissue.fraction(place) == 0:
            return [], {}
        data = pyramid.tile(0, *cell)
        if data is None:
            return [], {}
        pixels = pyramid.codec.decode(data)[: place.height, : place.width]
        mask = mask_pixels(tissue, place) if tissue else _differs(pixels, glass)
        return list(_fields(pixels, mask, place)), {
            name: read_dab(pixels, mask & mask_pixels(region, place))
            for name, region in regions.items()
            if region.fraction(place) > 0
        }

    with ThreadPoolExecutor(processors()) as pool:
        for fields, parts in pool.map(read, cells):
            found.fields += fields
            found.whole = sum((each.readout for each in fields), found.whole)
            for name, part in parts.items():
                found.regions[name] += part
    return found


def mask_pixels(mask: TissueMask, place: Region) -> NDArray[np.bool_]:
    """(height, width) of ``place``: whether the mask pixel under each pixel's centre is tissue."""
    rows = ((np.arange(place.top, place.bottom) + 0.5) / mask.downsample).astype(np.intp)
    columns = ((np.arange(place.left, place.right) + 0.5) / mask.downsample).astype(np.intp)
    last = np.array(mask.pixels.shape) - 1
    return np.asarray(mask.pixels[np.ix_(np.minimum(rows, last[0]), np.minimum(columns, last[1]))])


def _inside(region: Region, size: Size) -> Region:
    return region.intersection(Region(0, 0, *size))


def _differs(pixels: NDArray[np.uint8], glass: tuple[int, int, int]) -> NDArray[np.bool_]:
    return np.asarray((np.abs(pixels.astype(np.int16) - glass) > GLASS_STEP).any(axis=2))


def _fields(pixels: NDArray[np.uint8], mask: NDArray[np.bool_], place: Region) -> Iterator[Field]:
    """The fields of a tile that hold tissue; parts at the plane's edge too, so that they add up to the tile."""
    for top in range(0, place.height, FIELD_PX):
        for left in range(0, place.width, FIELD_PX):
            part = slice(top, top + FIELD_PX), slice(left, left + FIELD_PX)
            if mask[part].any():
                region = Region(place.top + top, place.left + left, *mask[part].shape)
                yield Field(region, read_dab(pixels[part], mask[part]))
