"""A picture in bands of rows, so that what is derived from it is never in memory for the whole of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

BAND_PX = 64


@dataclass(frozen=True, slots=True)
class Band:
    """Some rows of a picture, and what a 3 x 3 filter needs to see to give right values for them."""

    rows: slice
    """Of the picture."""
    seen: slice
    """Of the picture: the rows, and one more on either side that is inside it."""

    @property
    def own(self) -> slice:
        """Where the band's rows lie among those it sees."""
        return slice(self.rows.start - self.seen.start, self.rows.stop - self.seen.start)


def bands(height: int) -> Iterator[Band]:
    """Bands that cover ``height`` rows, top to bottom."""
    for top in range(0, height, BAND_PX):
        bottom = min(height, top + BAND_PX)
        yield Band(slice(top, bottom), slice(max(0, top - 1), min(height, bottom + 1)))
