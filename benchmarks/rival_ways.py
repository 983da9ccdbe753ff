"""How others would do it: load, invert, save a tiled JPEG pyramid, quality 85, tiles of 512 px. One way a call.

    python benchmarks/rival_ways.py libvips|openslide|tiatoolbox SOURCE TARGET

Runs in any Python that has the way's own libraries, and prints their versions. Exit status 3: they are not installed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

ABSENT = 3
TILE_PX = 512
READ_PX = 1024


def libvips(source: str, target: str) -> str:
    """One expression; libvips streams it through all cores. ``access="random"`` takes as long."""
    import pyvips

    image = pyvips.Image.new_from_file(source, access="sequential")
    tiles = {"tile": True, "tile_width": TILE_PX, "tile_height": TILE_PX, "pyramid": True, "bigtiff": True}
    image.invert().tiffsave(target, compression="jpeg", Q=85, **tiles)
    return f"libvips {pyvips.version(0)}.{pyvips.version(1)}.{pyvips.version(2)}"


def openslide(source: str, target: str) -> str:
    """A loop over regions of 1,024 px into one array, which tifffile writes."""
    import numpy as np
    import openslide

    slide = openslide.OpenSlide(source)

    def read(left: int, top: int, width: int, height: int) -> np.ndarray:
        return np.asarray(slide.read_region((left, top), 0, (width, height)).convert("RGB"))

    _loop(*slide.dimensions, read, target)
    return f"OpenSlide {openslide.__library_version__}"


def tiatoolbox(source: str, target: str) -> str:
    """The same loop with TIAToolbox's reader."""
    import tiatoolbox
    from tiatoolbox.wsicore.wsireader import WSIReader

    slide = WSIReader.open(source)

    def read(left: int, top: int, width: int, height: int) -> object:
        return slide.read_rect((left, top), (width, height), resolution=0, units="level")

    _loop(*slide.info.slide_dimensions, read, target)
    return f"TIAToolbox {tiatoolbox.__version__}"


def _loop(width: int, height: int, read: Callable[[int, int, int, int], object], target: str) -> None:
    import numpy as np

    plane = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, READ_PX):
        for left in range(0, width, READ_PX):
            size = min(READ_PX, width - left), min(READ_PX, height - top)
            plane[top : top + size[1], left : left + size[0]] = 255 - read(left, top, *size)
    _write_pyramid(plane, target)


def _write_pyramid(plane: object, target: str) -> None:
    """tifffile encodes on all cores; levels by OpenCV, which is the fastest."""
    import cv2
    import tifffile

    options = {"tile": (TILE_PX, TILE_PX), "compression": "jpeg", "compressionargs": {"level": 85}}
    options |= {"photometric": "rgb", "subsampling": (2, 2)}
    levels = [plane]
    while max(levels[-1].shape) > TILE_PX:
        height, width = levels[-1].shape[:2]
        levels.append(cv2.resize(levels[-1], (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA))
    with tifffile.TiffWriter(target, bigtiff=True) as writer:
        writer.write(levels[0], subifds=len(levels) - 1, **options)
        for level in levels[1:]:
            writer.write(level, subfiletype=1, **options)


WAYS = {"libvips": libvips, "openslide": openslide, "tiatoolbox": tiatoolbox}

if __name__ == "__main__":
    try:
        print(WAYS[sys.argv[1]](*sys.argv[2:]))
    except ImportError as error:
        print(error)
        sys.exit(ABSENT)
