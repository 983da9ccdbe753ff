"""Bands of rows of a picture: intermediate arrays are computed band by band, and never fill memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

BAND_PX = 64


@dataclass(frozen=True, slots=True)
class Band:
    """Some rows of a picture, and the rows that a 3 x 3 filter needs for them."""

    rows: slice
    """The rows, in the picture."""
    seen: slice
    """The rows and one more on either side, as far as the picture has them."""

    @property
    def own(self) -> slice:
        """The position of ``rows`` in an array of the rows ``seen``."""
        return slice(self.rows.start - self.seen.start, self.rows.stop - self.seen.start)


def bands(height: int) -> Iterator[Band]:
    """Bands that cover ``height`` rows, top to bottom."""
    for top in range(0, height, BAND_PX):
        bottom = min(height, top + BAND_PX)
        yield Band(slice(top, bottom), slice(max(0, top - 1), min(height, bottom + 1)))
