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
from wsi_ihc.slides.memory import MemorySlide

FORMATS = ("PNG", "JPEG", "JPEG2000", "BMP", "WEBP")
COLOUR_MODES = ("RGB", "RGBA", "P")


def open_image(path: Path, settings: SlideSettings) -> MemorySlide:
    """A picture decoded whole into memory; such files know nothing of micrometres.

    Memory bound: three bytes a pixel, of at most 179 million pixels, beyond which Pillow suspects a bomb.

    Raises:
        UnreadableSlideError: damaged or truncated.
        UnsupportedSlideError: too large to be decoded whole, or not RGB.
    """
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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # half of the limit that holds here
            with Image.open(path, formats=FORMATS) as image:
                if image.mode not in COLOUR_MODES:
                    raise UnsupportedSlideError(
                        f"{path}: 8-bit brightfield RGB expected, found Pillow mode {image.mode}"
                    )
                return _on_white(image)
    except Image.DecompressionBombError:
        raise UnsupportedSlideError(
            f"{path}: too large for a picture that must be decoded whole; convert it to a tiled TIFF first"
        ) from None
    except UnsupportedSlideError:
        raise
    except Exception as error:  # each of Pillow's decoders has its own exceptions
        raise UnreadableSlideError(f"{path}: damaged picture ({one_line(error)})") from error


def _on_white(image: Image.Image) -> NDArray[np.uint8]:
    """RGB, laid on white glass where the picture is transparent."""
    if image.mode == "RGB":
        return np.array(image)
    rgba = image.convert("RGBA")
    glass = Image.new("RGBA", rgba.size, "white")
    return np.array(Image.alpha_composite(glass, rgba).convert("RGB"))
