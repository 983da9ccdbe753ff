"""Small pictures of a slide and its output for the page of a batch. They may be absent: none is worth a failure."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.config import SlideSettings
from wsi_ihc.machine.atomic import write_atomically

SIDE_PX = 360


def ihc_picture(folder: Path, name: str) -> Path:
    """Where the picture of the output lies in the folder of records."""
    return folder / f"{name}.jpg"


def he_picture(folder: Path, name: str) -> Path:
    """Where the picture of the slide lies; in a folder of its own, so that no two names meet."""
    return folder / "he" / f"{name}.jpg"


def keep_thumbnail(output: Path, path: Path) -> None:
    """Writes a picture of ``output`` as a JPEG; removes it where that fails."""
    import tifffile

    try:
        with tifffile.TiffFile(output) as tiff:
            levels = tiff.series[0].levels
            fitting = [level for level in levels if max(level.shape[:2]) >= SIDE_PX]
            pixels = (fitting or levels)[-1 if fitting else 0].asarray()
        write_atomically(path, _jpeg(pixels))
    except Exception:  # a damaged picture raises anything
        with suppress(OSError):
            path.unlink(missing_ok=True)


def keep_slide_thumbnail(slide: Path, settings: SlideSettings, path: Path) -> None:
    """Writes a picture of ``slide`` as a JPEG.

    A slide without reduced levels is read as a whole; memory stays bounded. Meant for the process that has just
    converted the slide, which may crash: files come from strangers.
    """
    from wsi_ihc.pyramid.geometry import Region
    from wsi_ihc.slides import SlideView, open_slide

    with suppress(Exception):  # a damaged slide raises anything
        reader = open_slide(slide, settings)
        try:
            longest = max(reader.levels[0].size)
            view = SlideView.reduced(reader, max(1.0, longest / SIDE_PX))
            write_atomically(path, _jpeg(view.read(Region(0, 0, view.size.height, view.size.width))))
        finally:
            reader.close()


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    import cv2

    shrink = min(1.0, SIDE_PX / max(pixels.shape[:2]))
    if shrink < 1:
        pixels = np.asarray(cv2.resize(pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA), np.uint8)
    encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return encoded.tobytes()
