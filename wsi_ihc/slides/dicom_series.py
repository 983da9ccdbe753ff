"""Which files of a folder make one DICOM slide."""

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


@dataclass(frozen=True)
class Series:
    """The files of one slide."""

    files: tuple[Path, ...]
    """In the order of their names. Of several files that hold the same level, one."""
    repeated: tuple[Path, ...] = ()
    """Files of the series that hold a level once more, and are left out."""
    damaged: tuple[Path, ...] = ()
    """DICOM files of the folder whose header cannot be read: they may belong to the slide, and are left out."""
    spacings: Mapping[Size, float] = field(default_factory=dict)
    """Stated um/px in x of the levels, by their size."""

    @property
    def notices(self) -> tuple[str, ...]:
        """What a user should know about the files that are left out."""
        told = []
        if self.damaged:
            told.append(f"left out, for the header cannot be read: {_listed(self.damaged)}")
        if self.repeated:
            told.append(f"left out, for it repeats a level (name a file to read that one): {_listed(self.repeated)}")
        return tuple(told)


@dataclass(frozen=True)
class _Member:
    """What the header of a file says about its place in a series."""

    file: Path
    series: str
    size: Size | None
    """Of its level; None for a label, an overview or a thumbnail."""
    plane: tuple[float, str]
    """Depth of focus in um, and the optical path."""
    part_of: str
    """The level that it is a part of: the concatenation, or the file itself."""
    spacing: float | None
    """Stated um/px in x."""


def series_of(path: Path) -> Series:
    """The files of the slide that ``path`` belongs to, or of the one slide in the folder ``path``.

    A file that is named is always one of them: where the series has several files of one size (focal planes, optical
    paths, repeated scans), it stands for its level. Files whose header cannot be read, and files that are no
    whole-slide image (annotations, a DICOMDIR), belong to no slide.

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
    chosen, repeated = _one_of_each_size([member for member in members if member.series == series], own)
    spacings = {member.size: member.spacing for member in chosen if member.size and member.spacing}
    return Series(tuple(member.file for member in chosen), tuple(member.file for member in repeated), damaged, spacings)


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


def _one_of_each_size(members: Sequence[_Member], own: _Member | None) -> tuple[list[_Member], list[_Member]]:
    """The members that make one pyramid, and those that repeat a level of it.

    The pyramid has the focal plane and the optical path of ``own``, or the middle plane of the first path.
    """
    levels = [member for member in members if member.size]
    plane = own.plane if own and own.size else _middle_plane(levels)
    preferred = sorted(levels, key=lambda member: (member is not own, member.plane != plane, member.file))
    parts = {member.size: member.part_of for member in reversed(preferred)}
    left_out = [member for member in levels if parts[member.size] != member.part_of]
    return [member for member in members if member not in left_out], left_out


def _middle_plane(levels: Iterable[_Member]) -> tuple[float, str] | None:
    planes = sorted({member.plane for member in levels}, key=lambda plane: (plane[1], plane[0]))
    focal = [plane for plane in planes if plane[1] == planes[0][1]]
    return focal[len(focal) // 2] if focal else None


def _listed(files: Sequence[Path]) -> str:
    names = [file.name for file in files]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _member(file: Path) -> _Member | str:
    """A file of a whole-slide series; "damaged", or "other" for DICOM that is no whole-slide image."""
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
    """Depth of the plane where the header states one for the whole file, in um; 0 where it does not."""
    groups = header.get("SharedFunctionalGroupsSequence") or ()
    places = [place for group in groups for place in group.get("PlanePositionSlideSequence") or ()]
    for place in (*places, *(header.get("TotalPixelMatrixOriginSequence") or ())):
        if (depth := place.get("ZOffsetInSlideCoordinateSystem")) is not None:
            return float(depth)
    return 0.0
