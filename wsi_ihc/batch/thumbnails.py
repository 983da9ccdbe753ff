"""A small picture of an output, made once when it is finished."""

from __future__ import annotations

import os
from pathlib import Path

_SIDE_PX = 128


def keep_thumbnail(output: Path, path: Path) -> None:
    """Writes the smallest level of ``output`` as a JPEG. A picture is not worth a failure: it may be missing."""
    import cv2
    import tifffile

    try:
        with tifffile.TiffFile(output) as tiff:
            pixels = tiff.series[0].levels[-1].asarray()
        shrink = min(1.0, _SIDE_PX / max(pixels.shape[:2]))
        if shrink < 1:
            pixels = cv2.resize(pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        temporary.write_bytes(data.tobytes())
        os.replace(temporary, path)
    except (OSError, ValueError, IndexError, RuntimeError, cv2.error):
        path.unlink(missing_ok=True)
