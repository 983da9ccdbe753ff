"""A plain picture (PNG, JPEG, JPEG 2000, BMP, WebP) as a slide of one level."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_ihc.config import SlideSettings
from wsi_ihc.errors import UnreadableSlideError, UnsupportedSlideError, one_line
from wsi_ihc.slides import pixel_size
from wsi_ihc.slides.coded_size import coded_size
from wsi_ihc.slides.memory import MemorySlide
from wsi_ihc.slides.reader import only_one

FORMATS = ("PNG", "JPEG", "JPEG2000", "BMP", "WEBP")
COLOUR_MODES = ("RGB", "RGBA", "P")
MOST_PX = 150_000_000
"""Most pixels of a picture: a larger one and its copy would take more than 1 GB."""
HEADER_BYTES = 1 << 16
BAND_PX = 512


def open_image(path: Path, settings: SlideSettings) -> MemorySlide:
    """A picture, decoded whole into memory. Such files state no pixel size.

    Memory bound: at most 8 bytes per pixel during decoding, then 3, for at most ``MOST_PX`` pixels.

    Raises:
        UnreadableSlideError: the picture is damaged or truncated.
        UnsupportedSlideError: the picture is too large to be decoded whole, or not RGB.
    """
    only_one(settings)
    believed = pixel_size.settle(None, settings.mpp)
    return MemorySlide(
        _decoded(path),
        mpp=believed.mpp,
        properties={"vendor": "image"},
        notices=believed.notices,
        path=path,
        name="image",
    )


def _decoded(path: Path) -> NDArray[np.uint8]:
    with path.open("rb") as stream:
        stated = coded_size(stream.read(HEADER_BYTES))
    if stated and stated.height * stated.width > MOST_PX:
        raise _too_large(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # half of the limit that holds here
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MOST_PX:
                    raise _too_large(path)
                if image.mode not in COLOUR_MODES:
                    raise UnsupportedSlideError(
                        f"{path}: 8-bit brightfield RGB expected, found Pillow mode {image.mode}"
                    )
                return _on_white(image)
    except Image.DecompressionBombError:
        raise _too_large(path) from None
    except UnsupportedSlideError:
        raise
    except Exception as error:  # each of Pillow's decoders has its own exceptions
        raise UnreadableSlideError(f"{path}: damaged picture ({one_line(error)})") from error


def _too_large(path: Path) -> UnsupportedSlideError:
    return UnsupportedSlideError(
        f"{path}: too large for a picture that must be decoded whole; convert it to a tiled TIFF first"
    )


def _on_white(image: Image.Image) -> NDArray[np.uint8]:
    """(height, width, 3) RGB; transparent pixels become white. Done in bands, because a whole copy would be large."""
    if image.mode == "RGB":
        return np.array(image)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, BAND_PX):
        band = image.crop((0, top, image.width, min(top + BAND_PX, image.height))).convert("RGBA")
        glass = Image.new("RGBA", band.size, "white")
        pixels[top : top + BAND_PX] = np.array(Image.alpha_composite(glass, band).convert("RGB"))
    return pixels
