"""Reads one image file as RGB, or refuses it in one line: colours are never guessed, sizes are bounded before memory.

Read: 8 bits a channel as RGB, grey, palette, CMYK without a profile, or with transparency (shown on white, as viewers
show it). Refused: LAB, YCbCr that is not JPEG's own, more or fewer bits, float. A TIFF's first page counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from wsi_ihc.errors import DataSetError, one_line

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
MAX_PX = 80_000_000
"""Pixels of an image that is decoded whole: 240 MB. Patches have a hundredth of that."""

_PHOTOMETRIC = tifffile.PHOTOMETRIC
_READ_BY_MODE = ("RGB", "RGBA", "L", "LA", "P", "PA", "1", "CMYK")


def read_image(path: Path) -> NDArray[np.uint8]:
    """One image as ``(height, width, 3)`` uint8 RGB.

    Raises:
        DataSetError: missing, damaged, cut short, too large, no image, or in colours that are not 8-bit RGB.
    """
    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            return _read_tiff(path)
        return _read_with_pillow(path)
    except DataSetError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise _too_large(path, "too large") from None
    except FileNotFoundError:
        raise DataSetError(f"{path}: no such image") from None
    except Exception as error:  # decoders raise whatever they like on damaged bytes
        reason = one_line(error)
        raise DataSetError(f"{path}: cannot be read as an image ({reason}); replace or remove it") from None


def _refused(path: Path, seen: str) -> DataSetError:
    return DataSetError(f"{path}: {seen}; expected 8-bit RGB: export it again as 8-bit RGB PNG")


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PX:
        raise _too_large(path, f"{width} x {height} px")


def _too_large(path: Path, seen: str) -> DataSetError:
    return DataSetError(
        f"{path}: {seen}; an image of a pair has at most {MAX_PX // 10**6} million pixels: cut it into patches, or "
        "take layout: slides"
    )


def _read_with_pillow(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        _check_size(path, *image.size)
        if image.mode not in _READ_BY_MODE:
            raise _refused(path, f"{image.mode} pixels")
        if image.format == "PNG" and _png_depth(path) > 8:
            raise _refused(path, "16 bits a channel")
        # Unlike some faster decoders, Pillow refuses a file that was cut short instead of filling it with grey.
        if "A" in image.mode or "transparency" in image.info:
            return _on_white(path, np.array(image.convert("RGBA")))
        return np.array(image.convert("RGB"))


def _png_depth(path: Path) -> int:
    """Bits a channel, from the header: Pillow shortens 16 bits to 8 without a word."""
    with path.open("rb") as file:
        return file.read(25)[24]


def _on_white(path: Path, rgba: NDArray[np.uint8], *, premultiplied: bool = False) -> NDArray[np.uint8]:
    """Colours as seen on a white page."""
    colours, alpha = rgba[..., :3], rgba[..., 3:].astype(np.float32) / 255
    if not alpha.any():
        raise _refused(path, "wholly transparent")
    if alpha.min() == 1:
        return np.ascontiguousarray(colours)
    over = colours if premultiplied else colours * alpha
    shown: NDArray[np.uint8] = np.clip(over + 255 * (1 - alpha), 0, 255).round().astype(np.uint8)
    return shown


def _read_tiff(path: Path) -> NDArray[np.uint8]:
    with tifffile.TiffFile(path) as file:
        # The first page alone: a chain of directories may be endless.
        page: Any = file.pages[0]
        _check_size(path, page.imagewidth, page.imagelength)
        if getattr(page, "tilewidth", 0) * getattr(page, "tilelength", 0) > MAX_PX or page.imagedepth > 1:
            raise _refused(path, "tiles of impossible size")
        bits = {int(b) for b in np.atleast_1d(page.bitspersample)}
        if bits != {8} or page.dtype != np.uint8:
            raise _refused(path, f"{max(bits)} bits a channel")
        return _in_rgb(path, page)


def _in_rgb(path: Path, page: Any) -> NDArray[np.uint8]:
    """The pixels of a page of 8 bits a channel."""
    kind, samples = page.photometric, page.samplesperpixel
    jpeg = page.compression in (tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.OJPEG)
    if kind == _PHOTOMETRIC.PALETTE and samples == 1:
        return np.ascontiguousarray((page.colormap.T >> 8).astype(np.uint8)[page.asarray()])
    if kind in (_PHOTOMETRIC.MINISBLACK, _PHOTOMETRIC.MINISWHITE) and samples == 1:
        grey = page.asarray()
        return np.repeat((255 - grey if kind == _PHOTOMETRIC.MINISWHITE else grey)[..., None], 3, axis=2)
    if (kind == _PHOTOMETRIC.RGB and samples in (3, 4)) or (kind == _PHOTOMETRIC.YCBCR and jpeg and samples == 3):
        pixels = page.asarray()
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            pixels = np.moveaxis(pixels, 0, -1)
        return _without_extra(path, page, np.ascontiguousarray(pixels))
    if kind == _PHOTOMETRIC.SEPARATED and samples == 4 and not jpeg and page.planarconfig == 1:
        inks = 255 - page.asarray().astype(np.uint16)
        rgb: NDArray[np.uint8] = ((inks[..., :3] * inks[..., 3:] + 127) // 255).astype(np.uint8)
        return rgb
    name = getattr(kind, "name", str(kind))
    raise _refused(path, f"{name} pixels of {samples} samples")


def _without_extra(path: Path, page: Any, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Three channels: a fourth is transparency where the file says so, and nothing otherwise."""
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise _refused(path, f"array of shape {pixels.shape}")
    extra = [int(kind) for kind in page.extrasamples]
    if pixels.shape[2] == 4 and extra and extra[0] in (1, 2):
        return _on_white(path, pixels, premultiplied=extra[0] == 1)
    return np.ascontiguousarray(pixels[..., :3])
