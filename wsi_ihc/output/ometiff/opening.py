"""A finished OME-TIFF as a pyramid of encoded tiles, byte for byte as in the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from wsi_ihc.errors import UnreadableSlideError, UnsupportedSlideError, one_line
from wsi_ihc.machine.shared_file import SharedFile
from wsi_ihc.output.ometiff.omexml import OME, provenance_entries
from wsi_ihc.pyramid.codecs import DeflateTiles, JpegTiles, TileCodec
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.pyramid.levels import tile_grid

_JPEG, _DEFLATE, _HORIZONTAL = 7, (8, 32946), 2


@dataclass(frozen=True)
class TiffPyramid:
    """The tiles of an open file; a `TilePyramid`. The file is closed with the last reference to the object.

    Memory bound: 16 bytes a tile.
    """

    path: Path
    levels: tuple[Size, ...]
    codec: TileCodec
    mpp: float | None
    _file: SharedFile = field(repr=False, compare=False)
    _places: tuple[NDArray[np.uint64], ...] = field(repr=False, compare=False)
    """Per level, offset and length of each tile, row by row."""

    def tile(self, level: int, row: int, column: int) -> bytes | None:
        """The encoded tile, byte for byte as it lies in the file.

        Raises:
            UnreadableSlideError: the tile is damaged.
        """
        columns = tile_grid(self.levels[level], self.codec.side).width
        offset, length = (int(number) for number in self._places[level][row * columns + column])
        if length == 0:
            return None
        data = self._file.read(offset, length)
        if not self.codec.is_whole(data):
            raise UnreadableSlideError(
                f"{self.path}: tile {row}, {column} of level {level} is damaged; make the output again"
            )
        return data


def open_pyramid(path: Path) -> TiffPyramid:
    """The pyramid in the OME-TIFF at ``path``.

    Raises:
        UnreadableSlideError: missing, damaged, or no TIFF.
        UnsupportedSlideError: a TIFF whose tiles are not encoded as wsi-ihc encodes them.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            first: Any = tiff.pages[0]
            pages = [first, *(first.pages or ())]
            codec = _codec(path, pages)
            levels = tuple(Size(page.imagelength, page.imagewidth) for page in pages)
            places = tuple(_places(page) for page in pages)
            return TiffPyramid(path, levels, codec, _stated_mpp(first), SharedFile(path), places)
    except UnsupportedSlideError:
        raise
    except OSError as error:
        raise UnreadableSlideError(f"{path}: cannot be read ({error.strerror or one_line(error)})") from None
    except Exception as error:  # tifffile meets a damaged tag with any of Python's errors
        raise UnreadableSlideError(f"{path}: damaged, or no TIFF ({one_line(error)})") from None


def _places(page: Any) -> NDArray[np.uint64]:
    """Offset and length of each tile; 0 and 0 where a tile is absent.

    Raises:
        ValueError: there are fewer than the size of the level demands.
    """
    places = np.array([page.dataoffsets, page.databytecounts], np.uint64).T
    rows, columns = tile_grid(Size(page.imagelength, page.imagewidth), page.tilewidth)
    if len(places) != rows * columns:
        raise ValueError(f"{len(places)} tiles where {rows * columns} belong")
    return places


def _codec(path: Path, pages: list[Any]) -> TileCodec:
    """The codec that decodes the tiles of every level.

    Raises:
        UnsupportedSlideError: there is none.
    """
    page = pages[0]
    kinds = {
        (each.compression, each.predictor, each.tilewidth, each.tilelength, each.samplesperpixel) for each in pages
    }
    plain = page.is_tiled and page.tilewidth == page.tilelength and page.bitspersample == 8 and page.planarconfig == 1
    if len(kinds) == 1 and plain:
        channels = page.samplesperpixel
        facts = {"side": page.tilewidth, "channels": channels, "fill": (255,) * channels}
        # Streams without their tables are not whole: no browser could show them.
        if page.compression == _JPEG and not page.jpegtables and channels in (1, 3):
            return JpegTiles(**facts)
        if page.compression in _DEFLATE and page.predictor == _HORIZONTAL:
            return DeflateTiles(**facts)
    raise UnsupportedSlideError(
        f"{path}: its tiles are not encoded as wsi-ihc encodes them; open the slide in QuPath instead"
    )


def read_provenance(path: Path) -> dict[str, str]:
    """The provenance entries in the OME-TIFF at ``path``; empty when it has none or cannot be read."""
    try:
        with tifffile.TiffFile(path) as tiff:
            return provenance_entries(_document(tiff.pages[0]))
    except Exception:  # tifffile meets a damaged tag with any of Python's errors
        return {}


def _stated_mpp(page: Any) -> float | None:
    """Micrometres per pixel, as the OME-XML of level 0 states it; None where it does not."""
    try:
        pixels = _document(page).find(f".//{{{OME}}}Pixels")
        return float(pixels.attrib["PhysicalSizeX"]) if pixels is not None else None
    except (KeyError, ValueError, ElementTree.ParseError):
        return None


def _document(page: Any) -> ElementTree.Element:
    """The OME-XML of level 0.

    Raises:
        ParseError: the description is no XML, or absent.
    """
    value = page.tags.valueof(270, "")
    return ElementTree.fromstring(value if isinstance(value, bytes) else str(value).encode())
