"""Which files of a folder make one DICOM slide."""

from __future__ import annotations

import warnings
from pathlib import Path

import pydicom

from wsi_ihc.errors import UnsupportedSlideError


def is_dicom(file: Path) -> bool:
    """Whether the file has DICOM's mark after its preamble of 128 bytes."""
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def series_files(path: Path) -> list[Path]:
    """The files of the series that ``path`` belongs to, or of the one series in the folder ``path``.

    Raises:
        UnsupportedSlideError: a folder without DICOM files, or with several slides.
    """
    folder = path if path.is_dir() else path.parent
    series: dict[str, list[Path]] = {}
    own = None
    for file in sorted(folder.iterdir()):
        if not is_dicom(file):
            continue
        uid = _series_of(file)
        series.setdefault(uid, []).append(file)
        if file == path:
            own = uid
    if own is not None:
        return series[own]
    if len(series) == 1:
        return next(iter(series.values()))
    if series:
        raise UnsupportedSlideError(f"{path}: a folder with {len(series)} DICOM series; name one of its files")
    raise UnsupportedSlideError(
        f"{path}: a folder with no DICOM file; name a slide, or give a folder of slides to wsi-ihc batch"
    )


def _series_of(file: Path) -> str:
    """The UID of the file's series; a file without a readable one is a series of its own."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(file, specific_tags=["SeriesInstanceUID"], stop_before_pixels=True)
            return str(header.get("SeriesInstanceUID", file.name))
    except Exception:  # a damaged header raises anything; the readers will say what is wrong with it
        return file.name
