"""Rectangles and sizes in pixels. One order everywhere: top, left, height, width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Size(NamedTuple):
    """Height and width of a pixel plane."""

    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of pixels; may reach outside its plane, where a slide reads as white."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        return self.top + self.height

    @property
    def right(self) -> int:
        return self.left + self.width

    @property
    def size(self) -> Size:
        return Size(self.height, self.width)

    @property
    def area(self) -> int:
        return self.height * self.width

    def expanded(self, margin: int) -> Region:
        """The region with ``margin`` pixels more on every side."""
        return Region(self.top - margin, self.left - margin, self.height + 2 * margin, self.width + 2 * margin)

    def intersection(self, other: Region) -> Region:
        """The common part; its area is 0 (never negative) when there is none."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom, right = min(self.bottom, other.bottom), min(self.right, other.right)
        return Region(top, left, max(0, bottom - top), max(0, right - left))

    def relative_to(self, origin: Region) -> Region:
        """The same region in coordinates whose zero is ``origin``'s top left corner."""
        return Region(self.top - origin.top, self.left - origin.left, self.height, self.width)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, for indexing an array whose zero is the plane's (or ``relative_to``) origin."""
        return slice(self.top, self.bottom), slice(self.left, self.right)
