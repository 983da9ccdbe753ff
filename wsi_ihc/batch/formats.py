"""File names that a search of folders takes for slides, and those that could be slides and are not taken."""

from __future__ import annotations

import re
from pathlib import Path

from wsi_ihc.slides.identify import TIFF, is_dicom

SUFFIXES = frozenset(
    {".svs", ".tif", ".tiff", ".btf", ".tf8", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".bif", ".svslide", ".czi"}
)
"""What a search of folders takes for a slide; a file that is named itself may have any name."""

_UNSUPPORTED = {
    ".qptiff": "Akoya QPTIFF",
    ".vsi": "Olympus VSI",
    ".ets": "Olympus VSI",
    ".isyntax": "Philips iSyntax",
    ".i2syntax": "Philips iSyntax",
    ".kfb": "KFBio",
    ".sdpc": "Teksqray SDPC",
    ".dyj": "Teksqray DYJ",
    ".tron": "InteMedic TRON",
    ".mds": "Motic MDS",
    ".mdsx": "Motic MDS",
    ".tmap": "UNIC TMAP",
    ".lif": "Leica LIF",
    ".lof": "Leica LOF",
    ".nd2": "Nikon ND2",
    ".oir": "Olympus OIR",
    ".zvi": "Zeiss ZVI",
    ".lsm": "Zeiss LSM",
    ".ims": "Imaris",
    ".sld": "SlideBook",
    ".afi": "Aperio AFI (fluorescence)",
    ".fli": "Aperio fluorescence",
    ".szi": "SZI",
    ".dzi": "Deep Zoom",
    ".zarr": "OME-Zarr",
    ".h5": "HDF5",
    ".hdf5": "HDF5",
}
_PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".jp2", ".j2k", ".jpx", ".jxl", ".gif"})
_ARCHIVES = frozenset({".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".tar", ".7z", ".rar"})
_UNFINISHED = frozenset({".part", ".partial", ".filepart", ".crdownload", ".download", ".tmp", ".temp"})
_COPY = re.compile(r"\.(bak|old|orig|\d+)$", re.IGNORECASE)


def is_slide_name(name: str) -> bool:
    """Whether a search takes a file of that name."""
    return Path(name).suffix.lower() in SUFFIXES


def could_be_slide(name: str) -> bool:
    """Whether the name alone suggests a slide, of a format that is read or of another one."""
    return is_slide_name(name) or Path(name).suffix.lower() in _UNSUPPORTED or why_not_taken(name) != ""


def why_not_taken(name: str) -> str:
    """Why a file that could be a slide is not taken, by its name; empty for any other file."""
    suffix = Path(name).suffix.lower()
    if suffix in _UNSUPPORTED:
        return f"{_UNSUPPORTED[suffix]} is not read; export it as OME-TIFF or DICOM, or name the file itself to try it"
    if suffix in _PICTURES:
        return "a picture, which states no pixel size; name the file itself and give --mpp to stain it"
    inner = Path(name).stem
    if suffix == ".zip" or (suffix in _ARCHIVES and (is_slide_name(inner) or inner.lower().endswith(".tar"))):
        return "an archive; unpack it first"
    if suffix in _UNFINISHED and is_slide_name(inner):
        return "a copy or download that has not ended"
    if _COPY.search(name) and is_slide_name(_COPY.sub("", name)):
        return "an old copy by its name; name the file itself to stain it"
    return ""


def is_dicom_name(path: Path) -> bool:
    """Whether the file is DICOM by its suffix, or has no suffix and begins as DICOM; a DICOMDIR is an index."""
    if path.name.upper() == "DICOMDIR":
        return False
    return path.suffix.lower() == ".dcm" or (not path.suffix and is_dicom(path))


def is_nameless_tiff(path: Path) -> bool:
    """Whether a file without a suffix begins as a TIFF does."""
    try:
        with path.open("rb") as stream:
            return not path.suffix and stream.read(4) in TIFF
    except OSError:
        return False


def is_whole_slide_dicom(path: Path) -> bool:
    """Whether a DICOM file holds a whole-slide image; True also where its header is damaged: the reader says so."""
    import pydicom
    from pydicom.uid import VLWholeSlideMicroscopyImageStorage

    try:
        header = pydicom.dcmread(path, specific_tags=["SOPClassUID"], stop_before_pixels=True)
        kind = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
    except Exception:  # a damaged header raises anything
        return True
    return kind in (None, VLWholeSlideMicroscopyImageStorage)
