"""Choosing the reader by the file's content, and falling back where the first choice cannot."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal, assert_never

from wsi_ihc.config import SlideSettings
from wsi_ihc.errors import SlideError, UnsupportedSlideError
from wsi_ihc.pyramid.geometry import Region
from wsi_ihc.slides.believed import believed
from wsi_ihc.slides.identify import Kind, identify
from wsi_ihc.slides.reader import NotForThisReader, SlideReader

Name = Literal["tiff", "openslide", "tiffslide", "dicom", "dicom-direct", "image"]

DEFAULTS = SlideSettings()
DIRECT_VENDORS = (None, "aperio", "generic-tiff")
"""OpenSlide's vendors (None: unknown to it) whose TIFFs are decoded directly; the others crop, overlap or scatter."""


def open_slide(path: str | Path, settings: SlideSettings = DEFAULTS) -> SlideReader:
    """Open a whole-slide image, or a plain picture, for reading.

    ``settings.reader`` "auto" takes the fastest reader that understands the content, whatever the file's name says.
    A fallback is told in the slide's ``notices``.

    Raises:
        UnreadableSlideError: missing, truncated, damaged, or no image.
        UnsupportedSlideError: sound, but not 8-bit RGB, or of a layout that no reader takes.
    """
    path = Path(path)
    kind = identify(path)
    names: Sequence[Name] = _readers(path, kind) if settings.reader == "auto" else (settings.reader,)
    refusals: list[str] = []
    for name in names:
        try:
            slide = _opened(name, path, settings)
            if refusals:
                _prove(slide)
                slide.notices = (*slide.notices, f"read with {name}, because others cannot ({'; '.join(refusals)})")
            return believed(slide, partial(_opened, name, path, settings))
        except NotForThisReader as refusal:
            refusals.append(f"{name}: {refusal}")
    if missing := _missing_folder(path):
        raise UnsupportedSlideError(f"{path}: {missing} ({'; '.join(refusals)})")
    others = "" if settings.reader == "auto" else "; another reader may take it: --reader auto"
    raise UnsupportedSlideError(f"{path}: cannot be read ({'; '.join(refusals)}){others}")


def _readers(path: Path, kind: Kind) -> tuple[Name, ...]:
    """The readers to try, the fastest that gives right pixels first."""
    match kind:
        case "image":
            return ("image",)
        case "dicom":
            return ("openslide", "dicom", "dicom-direct")
        case "other":
            return ("openslide",)
        case "tiff":
            from openslide import OpenSlide

            direct = OpenSlide.detect_format(path) in DIRECT_VENDORS
            # tiffslide decodes with the libraries that the direct way uses: where they fail it has nothing to add.
            return ("tiff", "openslide") if direct else ("openslide", "tiffslide")
        case _:
            assert_never(kind)


def _opened(name: Name, path: Path, settings: SlideSettings) -> SlideReader:
    """Each library is only imported for a file that needs it."""
    match name:
        case "tiff":
            from wsi_ihc.slides.tiff import TiffReader

            return TiffReader(path, settings)
        case "openslide":
            from wsi_ihc.slides.openslide import OpenSlideReader

            return OpenSlideReader(path, settings)
        case "tiffslide":
            from wsi_ihc.slides.tiffslide import TiffSlideReader

            return TiffSlideReader(path, settings)
        case "dicom":
            from wsi_ihc.slides.dicom import DicomReader

            return DicomReader(path, settings)
        case "dicom-direct":
            from wsi_ihc.slides.dicom_direct import DirectDicomReader

            return DirectDicomReader(path, settings)
        case "image":
            from wsi_ihc.slides.image import open_image

            return open_image(path, settings)
        case _:
            assert_never(name)


def _prove(slide: SlideReader) -> None:
    """A second choice opens many a file of which it cannot read a pixel."""
    try:
        slide.read(Region(0, 0, 1, 1), len(slide.levels) - 1)
    except SlideError as error:
        slide.close()
        raise NotForThisReader(str(error).removeprefix(f"{slide.path}: ")) from error


def _missing_folder(path: Path) -> str | None:
    """A MIRAX file is only the door to a folder, which is easily left behind."""
    if path.suffix.lower() == ".mrxs" and not path.with_suffix("").is_dir():
        return f"its folder {path.stem}/ with the slide's data is missing beside it"
    return None
