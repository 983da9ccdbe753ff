"""Order of DICOM frames whose header states no positions: along the rows, as in the standard, or down the columns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wsi_ihc.errors import UnreadableSlideError
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.slides.assembly import Pixels

PAIRS = 64
"""Pairs of consecutive frames that are compared, spread over the slide."""
CLEARLY = 0.5
"""Columns are believed where the borders differ by less than this share of their difference along the rows."""


def goes_down_columns(grid: Size, fetch: Callable[[int], Pixels]) -> bool:
    """Whether frame i + 1 lies below frame i and not to its right, judged by the pixels along both borders.

    ``grid`` is the number of tiles in height and width; ``fetch`` decodes a frame, and damaged frames are skipped.
    Memory bound: two frames.
    """
    if 1 in grid:
        return False
    firsts = np.arange(grid.height * grid.width - 1)
    # The last of a row or of a column is followed by a tile from elsewhere.
    firsts = firsts[((firsts + 1) % grid.width != 0) & ((firsts + 1) % grid.height != 0)]
    right = below = 0.0
    for first in firsts[np.unique(np.linspace(0, len(firsts) - 1, PAIRS).astype(int))] if len(firsts) else ():
        try:
            one, other = fetch(int(first)), fetch(int(first) + 1)
        except UnreadableSlideError:
            continue
        right += _difference(one[:, -1], other[:, 0])
        below += _difference(one[-1], other[0])
    return below < CLEARLY * right


def _difference(one: Pixels, other: Pixels) -> float:
    return float(np.abs(one.astype(np.int16) - other).mean())
