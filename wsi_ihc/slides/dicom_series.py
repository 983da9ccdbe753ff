"""The files of a folder that make one DICOM slide."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import VLWholeSlideMicroscopyImageStorage

from wsi_ihc.errors import UnreadableSlideError, UnsupportedSlideError
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.slides.dicom_instance import stated_spacing
from wsi_ihc.slides.identify import is_dicom
from wsi_ihc.slides.reader import middle

_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "ImageType",
    "ConcatenationUID",
    "TotalPixelMatrixRows",
    "TotalPixelMatrixColumns",
    "TotalPixelMatrixOriginSequence",
    "OpticalPathSequence",
    "SharedFunctionalGroupsSequence",
]


_Plane = tuple[float, str]
"""Depth of the focal plane in um, and the optical path."""


@dataclass(frozen=True)
class Series:
    """The files of one slide."""

    files: tuple[Path, ...]
    """Sorted by name; one file for each level."""
    repeated: tuple[Path, ...] = ()
    """Files of the series that are left out, because another file holds the same level."""
    damaged: tuple[Path, ...] = ()
    """DICOM files of the folder that are left out, because their headers cannot be read."""
    spacings: Mapping[Size, float] = field(default_factory=dict)
    """Stated um/px in x of the levels, by their size."""
    planes: int = 1
    """Number of focal planes, where each lies in files of its own."""
    plane: int = 1
    """Number of the focal plane in ``files``, from 1."""

    @property
    def notices(self) -> tuple[str, ...]:
        """One line for each kind of file that is left out."""
        notices = []
        if self.damaged:
            notices.append(f"left out, for their headers cannot be read: {_listed(self.damaged)}")
        if self.repeated:
            repeated = _listed(self.repeated)
            notices.append(f"left out, for they repeat a level (name a file to read that one): {repeated}")
        return tuple(notices)


@dataclass(frozen=True)
class _Member:
    """A file's place in its series, from its header."""

    file: Path
    series: str
    size: Size | None
    """Size of the level; None for a label, an overview or a thumbnail."""
    plane: _Plane
    part_of: str
    """The concatenation that the file is a part of, else the file itself."""
    spacing: float | None
    """Stated um/px in x."""


def series_of(path: Path, plane: int | None = None) -> Series:
    """The files of the slide that ``path`` belongs to, or of the one slide in the folder ``path``.

    A named file is always among them: where the series has several files of one size (focal planes, optical paths,
    repeated scans), the named one is taken. Files with an unreadable header, and files that are no whole-slide image
    (annotations, a DICOMDIR), belong to no slide. ``plane`` chooses among focal planes that lie in files of their own,
    from 1; None takes that of the named file, or else the middle one.

    Raises:
        UnreadableSlideError: the folder cannot be listed.
        UnsupportedSlideError: a folder without a DICOM slide, or with several.
    """
    folder = path if path.is_dir() else path.parent
    try:
        files = sorted(file for file in folder.iterdir() if file.is_file() and is_dicom(file))
    except OSError as error:
        raise UnreadableSlideError(f"{folder}: cannot be listed ({error.strerror}); check the path") from None
    found = {file: _member(file) for file in files}
    members = [member for member in found.values() if isinstance(member, _Member)]
    damaged = tuple(file for file, member in found.items() if member == "damaged" and file.name != path.name)
    own = next((member for member in members if member.file.name == path.name), None) if folder != path else None
    if folder != path and own is None:
        return Series((path,))
    series = own.series if own else _only_series(path, members, files)
    if series is None:
        return Series(tuple(files))
    of_series = [member for member in members if member.series == series]
    planes = _planes(of_series, own)
    if plane is not None and len(planes) > 1:
        own = None
    wanted = own.plane if own and own.size else _numbered(path, planes, plane)
    chosen, repeated = _one_of_each_size(of_series, own, wanted)
    spacings = {member.size: member.spacing for member in chosen if member.size and member.spacing}
    return Series(
        tuple(member.file for member in chosen),
        tuple(member.file for member in repeated),
        damaged,
        spacings,
        max(1, len(planes)),
        planes.index(wanted) + 1 if wanted in planes else 1,
    )


def series_files(path: Path) -> list[Path]:
    """The files of :func:`series_of`."""
    return list(series_of(path).files)


def _only_series(path: Path, members: Sequence[_Member], files: Sequence[Path]) -> str | None:
    """The one series in a folder; None where its only DICOM file is no slide: the reader says what that file is."""
    uids = {member.series for member in members}
    if len(uids) == 1:
        return uids.pop()
    if uids:
        raise UnsupportedSlideError(f"{path}: a folder with {len(uids)} DICOM series; name one of its files")
    if len(files) == 1:
        return None
    if files:
        raise UnsupportedSlideError(f"{path}: none of its {len(files)} DICOM files is a whole-slide image")
    raise UnsupportedSlideError(
        f"{path}: a folder with no DICOM file; name a slide, or give a folder of slides to wsi-ihc batch"
    )


def _one_of_each_size(
    members: Sequence[_Member], own: _Member | None, plane: _Plane | None
) -> tuple[list[_Member], list[_Member]]:
    """The members that make one pyramid (of ``plane``, where there are several), and those that repeat a level."""
    levels = [member for member in members if member.size]
    preferred = sorted(levels, key=lambda member: (member is not own, member.plane != plane, member.file))
    parts = {member.size: member.part_of for member in reversed(preferred)}
    left_out = [member for member in levels if parts[member.size] != member.part_of]
    return [member for member in members if member not in left_out], left_out


def _planes(members: Iterable[_Member], own: _Member | None) -> list[_Plane]:
    """The focal planes of one optical path (that of ``own``, or the first), sorted by depth."""
    found = {member.plane for member in members if member.size}
    path = own.plane[1] if own and own.size else min((plane[1] for plane in found), default="")
    return sorted(plane for plane in found if plane[1] == path)


def _numbered(path: Path, planes: Sequence[_Plane], number: int | None) -> _Plane | None:
    if number is None or len(planes) < 2:
        return planes[middle(len(planes)) - 1] if planes else None
    if number > len(planes):
        raise UnsupportedSlideError(f"{path}: plane {number} is wanted, the series has {len(planes)}")
    return planes[number - 1]


def _listed(files: Sequence[Path]) -> str:
    names = [file.name for file in files]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _member(file: Path) -> _Member | str:
    """The file as a member of a series; "damaged", or "other" for DICOM that is no whole-slide image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's, about formalities of the header
            header = pydicom.dcmread(file, specific_tags=list(_TAGS), stop_before_pixels=True)
            kind = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
            if kind != VLWholeSlideMicroscopyImageStorage:
                return "other" if kind else "damaged"
            return _from_header(file, header)
    except Exception:  # a damaged header raises anything
        return "damaged"


def _from_header(file: Path, header: Dataset) -> _Member:
    size = Size(int(header.get("TotalPixelMatrixRows") or 0), int(header.get("TotalPixelMatrixColumns") or 0))
    role = header.get("ImageType")
    is_level = size.height * size.width > 0 and (not role or "VOLUME" in role)
    paths = [str(path.get("OpticalPathIdentifier", "")) for path in header.get("OpticalPathSequence") or ()]
    return _Member(
        file,
        str(header.get("SeriesInstanceUID", file.name)),
        size if is_level else None,
        (_focus_um(header), "+".join(paths)),
        str(header.get("ConcatenationUID") or file.name),
        (stated_spacing(header) or (None,))[0],
    )


def _focus_um(header: Dataset) -> float:
    """Depth of the focal plane in um, where the header states one for the whole file; else 0."""
    groups = header.get("SharedFunctionalGroupsSequence") or ()
    places = [place for group in groups for place in group.get("PlanePositionSlideSequence") or ()]
    for place in (*places, *(header.get("TotalPixelMatrixOriginSequence") or ())):
        if (depth := place.get("ZOffsetInSlideCoordinateSystem")) is not None:
            return float(depth)
    return 0.0
