"""Opens a slide: the content of the file chooses the reader, and another one takes over where the first cannot."""

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
"""OpenSlide's vendors (None: unknown to it) whose TIFFs are decoded directly; others crop, overlap or scatter tiles."""


def open_slide(path: str | Path, settings: SlideSettings = DEFAULTS) -> SlideReader:
    """Opens a whole-slide image, or a plain picture, for reading.

    ``settings.reader`` "auto" takes the fastest reader that understands the content; the file name does not matter.
    Where another reader takes over, the ``notices`` of the slide say so.

    Raises:
        UnreadableSlideError: missing, truncated, damaged, or no image.
        UnsupportedSlideError: sound, but not 8-bit RGB, or in a layout that no reader understands.
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
    """The readers to try, in order: all return correct pixels, the fastest comes first."""
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
            # tiffslide decodes with the same libraries as the direct reader: where they fail, it fails too.
            return ("tiff", "openslide") if direct else ("openslide", "tiffslide")
        case _:
            assert_never(kind)


def _opened(name: Name, path: Path, settings: SlideSettings) -> SlideReader:
    """The slide in the reader ``name``, whose library is imported only now."""
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
    """Refuses a fallback reader that opens the file but cannot read a pixel of it.

    Raises:
        NotForThisReader: the pixel cannot be read; the slide is closed.
    """
    try:
        slide.read(Region(0, 0, 1, 1), len(slide.levels) - 1)
    except SlideError as error:
        slide.close()
        raise NotForThisReader(str(error).removeprefix(f"{slide.path}: ")) from error


def _missing_folder(path: Path) -> str | None:
    """A message where the folder of a MIRAX slide is missing: the slide lies in it, and people copy only the file."""
    if path.suffix.lower() == ".mrxs" and not path.with_suffix("").is_dir():
        return f"its folder {path.stem}/ with the slide's data is missing beside it"
    return None
