"""Pictures that the page shows: JPEG tiles by level, row and column, and the place of each picture on the slide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from wsi_ihc.pyramid.geometry import Size

MEDIA_TYPE = "image/jpeg"

Role = Literal["he", "virtual", "real", "layer"]
"""``he`` is the scanned H&E, ``virtual`` its synthetic stain, ``real`` another scan, ``layer`` a plane beside the
virtual stain, such as a probability."""


class TileSource(Protocol):
    """Where the tiles of a picture come from. Level 0 is the finest, every further level is half as wide."""

    @property
    def size(self) -> Size:
        """Of level 0, pixels."""

    @property
    def levels(self) -> int:
        """How many levels there are."""

    @property
    def side(self) -> int:
        """Side of a tile, pixels."""

    @property
    def version(self) -> str:
        """Changes when the pixels change."""

    def tile(self, level: int, row: int, column: int) -> bytes:
        """A whole JPEG of ``side`` x ``side`` pixels. Thread-safe.

        Raises:
            WsiIhcError: the pixels cannot be read.
        """


@dataclass(frozen=True)
class Placement:
    """Where a picture lies on the frame, in level 0 pixels of the H&E."""

    left: float = 0.0
    top: float = 0.0
    scale: float = 1.0
    """Level 0 pixels of the H&E per pixel of this picture."""


@dataclass(frozen=True)
class Picture:
    """One picture of a case."""

    name: str
    role: Role
    source: TileSource
    placement: Placement = Placement()
    note: str = ""
    """File and pixel size, for the legend."""

    @property
    def is_synthetic(self) -> bool:
        return self.role in ("virtual", "layer")

    def described(self, tiles: Any) -> Mapping[str, Any]:
        """The picture as the page's script reads it; ``tiles`` says where its tiles are."""
        return {
            "name": self.name,
            "role": self.role,
            "synthetic": self.is_synthetic,
            "note": self.note,
            "width": self.source.size.width,
            "height": self.source.size.height,
            "side": self.source.side,
            "levels": self.source.levels,
            "left": self.placement.left,
            "top": self.placement.top,
            "scale": self.placement.scale,
            "version": self.source.version,
            "tiles": tiles,
        }


def level_count(size: Size, side: int) -> int:
    """Levels until one tile holds the whole picture."""
    return max(1, (max(1, -(-max(size) // side)) - 1).bit_length() + 1)


def tile_counts(size: Size, level: int, side: int) -> tuple[int, int]:
    """Rows and columns of tiles on ``level``."""
    step = side << level
    return -(-size.height // step), -(-size.width // step)
