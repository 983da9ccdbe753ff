"""One level from the header of a DICOM whole-slide file: checked, and without facts about the patient."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage

from wsi_ihc.errors import SlideError, UnreadableSlideError, UnsupportedSlideError, one_line
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.slides.dicom_frames import CODINGS, Coding, Spans, encapsulated_spans, native_spans
from wsi_ihc.slides.levels import check_plane
from wsi_ihc.slides.reader import NotForThisReader, middle

PHOTOMETRIC = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
LARGEST_FRAME = 128_000_000
"""Most pixels of a frame: it is decoded whole."""


@dataclass(frozen=True)
class Instance:
    """One file of a series: a level, whose frames are its tiles."""

    file: Path
    size: Size
    tile: Size
    spans: Spans
    places: Mapping[tuple[int, int], int] | None
    """Index of the frame at each row and column of tiles; None when every tile has a frame, in ``order``."""
    order: Literal["rows", "columns", "unstated"]
    """Direction in which frames without places follow each other."""
    coding: Coding
    photometric: str
    planar: bool
    spacing: tuple[float, float] | None
    """Stated um/px in x and y."""
    objective: str | None
    planes: int = 1
    """Number of focal planes in the file."""
    plane: int = 1
    """Number of the focal plane that is read, from 1."""

    @property
    def grid(self) -> Size:
        """Number of tiles in height and width."""
        return Size(-(-self.size.height // self.tile.height), -(-self.size.width // self.tile.width))

    def frame(self, row: int, column: int) -> int | None:
        """Index of the frame at a row and column of tiles; None where nothing was scanned."""
        if self.places is not None:
            return self.places.get((row, column))
        tile = column * self.grid.height + row if self.order == "columns" else row * self.grid.width + column
        return (self.plane - 1) * self.grid.height * self.grid.width + tile


def read_instance(file: Path, plane: int | None = None) -> Instance | None:
    """The level in ``file``; None for a label, an overview or a thumbnail.

    ``plane`` chooses one of its focal planes, from 1; None takes the middle one.

    Memory bound: the header, and 16 bytes per frame.

    Raises:
        NotForThisReader: no whole-slide image, or a layout that is not decoded here.
        UnreadableSlideError: the file is truncated.
        UnsupportedSlideError: the pixels are not 8-bit RGB, or the file has no such focal plane.
    """
    try:
        with warnings.catch_warnings(), file.open("rb") as stream:
            warnings.simplefilter("ignore")  # pydicom's, about formalities of the header
            header = pydicom.dcmread(stream, stop_before_pixels=True)
            if header.get("SOPClassUID") != VLWholeSlideMicroscopyImageStorage:
                raise NotForThisReader("not a whole-slide image")
            return _checked(file, header, stream, plane) if _is_volume(header) else None
    except SlideError:
        raise
    except Exception as error:  # a damaged header raises anything
        raise NotForThisReader(f"its header cannot be followed, {one_line(error)}") from error


def stated_width(file: Path) -> int:
    """Width of the level in ``file`` as its header states it; 0 where it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(file, specific_tags=["TotalPixelMatrixColumns"], stop_before_pixels=True)
            return int(header.get("TotalPixelMatrixColumns") or 0)
    except Exception:  # a damaged header raises anything
        return 0


def _is_volume(header: Dataset) -> bool:
    """Whether the file shows the tissue: its ImageType says so, or it has none and does not show the label."""
    role = header.get("ImageType")
    return "VOLUME" in role if role else header.get("SpecimenLabelInImage") != "YES"


def _checked(file: Path, header: Dataset, stream: BinaryIO, wanted: int | None) -> Instance:
    size = Size(int(header.TotalPixelMatrixRows), int(header.TotalPixelMatrixColumns))
    tile = Size(int(header.Rows), int(header.Columns))
    check_plane(file, size)
    _check_samples(file, header)
    syntax = str(header.file_meta.TransferSyntaxUID)
    if obstacle := _obstacle(header, syntax, tile):
        raise NotForThisReader(obstacle)
    count = int(header.get("NumberOfFrames", 1))
    try:
        if CODINGS[syntax] == "native":
            spans = native_spans(stream, syntax == ImplicitVRLittleEndian, count, 3 * tile.height * tile.width)
        else:
            spans = encapsulated_spans(stream, count, header.get("ExtendedOffsetTable", b""))
    except ValueError as error:
        raise UnreadableSlideError(f"{file}: {error}; copy or download it again") from error
    depths = _depths(header, count // max(1, -(-size.height // tile.height) * -(-size.width // tile.width)))
    plane = wanted or middle(len(depths))
    if plane > len(depths):
        raise UnsupportedSlideError(f"{file}: plane {plane} is wanted, the file has {len(depths)}")
    return Instance(
        file,
        size,
        tile,
        spans,
        _places(header, size, tile, count, depths[plane - 1]),
        "rows" if header.get("DimensionOrganizationType") == "TILED_FULL" else "unstated",
        CODINGS[syntax],
        header.PhotometricInterpretation,
        bool(header.get("PlanarConfiguration", 0)),
        stated_spacing(header),
        _objective(header),
        len(depths),
        plane,
    )


def _check_samples(file: Path, header: Dataset) -> None:
    """Refuse pixels that are not 8-bit RGB.

    Raises:
        UnsupportedSlideError: saying what was found instead.
    """
    samples = (header.SamplesPerPixel, header.BitsAllocated, header.PhotometricInterpretation)
    if samples[:2] != (3, 8) or samples[2] not in PHOTOMETRIC:
        raise UnsupportedSlideError(
            f"{file}: 8-bit brightfield RGB expected, found {samples[0]} x {samples[1]} bits, {samples[2]}"
        )


def _obstacle(header: Dataset, syntax: str, tile: Size) -> str | None:
    """Why the frames cannot be decoded here, or None when they can."""
    if syntax not in CODINGS:
        return f"transfer syntax {syntax} is not decoded"
    if CODINGS[syntax] == "native" and header.PhotometricInterpretation not in ("RGB", "YBR_FULL"):
        return f"{header.PhotometricInterpretation} without compression is not decoded"
    if "ConcatenationUID" in header:
        return "it is one part of a concatenation"
    if not 0 < tile.height * tile.width <= LARGEST_FRAME:
        return f"frames of {tile.width} x {tile.height} px are not decoded"
    return None


def _depths(header: Dataset, whole_planes: int) -> list[float | None]:
    """Depths of the focal planes in um, the nearest to the glass first; None for each where frames state no depth."""
    if header.get("DimensionOrganizationType") != "TILED_FULL":
        stated = {_depth(group) for group in header.get("PerFrameFunctionalGroupsSequence", ())} - {None}
        return sorted(stated, key=lambda depth: depth or 0.0) or [None]
    return [None] * max(1, min(int(header.get("TotalPixelMatrixFocalPlanes") or 1), whole_planes))


def _places(
    header: Dataset, size: Size, tile: Size, count: int, depth: float | None
) -> Mapping[tuple[int, int], int] | None:
    """Frame by row and column of tiles, for the focal plane at ``depth``; None where frames fill the grid in order.

    Only the first optical path is used.

    Raises:
        NotForThisReader: the frames do not fill a grid of tiles.
    """
    rows, columns = -(-size.height // tile.height), -(-size.width // tile.width)
    groups = header.get("PerFrameFunctionalGroupsSequence", ())
    positions = [_position(group) for group in groups]
    if header.get("DimensionOrganizationType") == "TILED_FULL" or not any(positions):
        if rows * columns > count:
            raise NotForThisReader(f"{count} frames are too few for {columns} x {rows} tiles")
        return None
    places: dict[tuple[int, int], int] = {}
    for frame, (group, position) in enumerate(zip(groups[:count], positions, strict=False)):
        if position is None or position[0] % tile.height or position[1] % tile.width:
            raise NotForThisReader(f"frame {frame + 1} lies beside the grid of tiles")
        if depth is None or _depth(group) in (None, depth):
            places.setdefault((position[0] // tile.height, position[1] // tile.width), frame)
    return places


def _depth(group: Dataset) -> float | None:
    """Distance of a frame's focal plane from the glass, um; None where it is not stated."""
    for place in group.get("PlanePositionSlideSequence", ()):
        depth = place.get("ZOffsetInSlideCoordinateSystem")
        return None if depth is None else float(depth)
    return None


def _position(group: Dataset) -> tuple[int, int] | None:
    """Top and left of a frame in the level, counted from 0 (DICOM counts from 1); None where not stated."""
    for place in group.get("PlanePositionSlideSequence", ()):
        return (
            int(place.RowPositionInTotalImagePixelMatrix) - 1,
            int(place.ColumnPositionInTotalImagePixelMatrix) - 1,
        )
    return None


def stated_spacing(header: Dataset) -> tuple[float, float] | None:
    """PixelSpacing (mm between rows, then between columns) as um/px in x, y; None where it is not stated.

    ImagedVolumeWidth and -Height are not used: too many writers invent them.
    """
    shared = header.get("SharedFunctionalGroupsSequence") or header.get("PerFrameFunctionalGroupsSequence") or ()
    for measures in (measure for group in shared[:1] for measure in group.get("PixelMeasuresSequence", ())):
        if spacing := measures.get("PixelSpacing"):
            return float(spacing[1]) * 1000, float(spacing[0]) * 1000
    return None


def _objective(header: Dataset) -> str | None:
    for optics in header.get("OpticalPathSequence", ()):
        if power := optics.get("ObjectiveLensPower"):
            return f"{float(power):g}"
    return None
