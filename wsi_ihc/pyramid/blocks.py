"""Blocks, the units of work: their cores partition the plane, their windows are cores plus halo."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.pyramid.levels import TILE_PX


@dataclass(frozen=True, slots=True)
class Block:
    """One unit of work. It writes its ``core`` and reads its ``window``; both are regions of the working plane."""

    row: int
    column: int
    core: Region
    window: Region


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """Blocks of ``core_px`` that cover a plane of ``size``, each read with ``halo_px`` more on every side.

    Every window has the same shape, also at the right and bottom edge of the plane: outside, the slide reads as white.
    ``core_px`` is a multiple of 512, so no two blocks write the same tile. ``halo_px`` must be a multiple of the
    generator's alignment, so that windows start on the generator's own lattice.
    """

    size: Size
    core_px: int
    halo_px: int

    def __post_init__(self) -> None:
        if self.core_px <= 0 or self.core_px % TILE_PX:
            raise ValueError(f"core_px must be a positive multiple of {TILE_PX}, not {self.core_px}")
        if self.halo_px < 0:
            raise ValueError(f"halo_px must not be negative, not {self.halo_px}")

    @property
    def rows(self) -> int:
        return -(-self.size.height // self.core_px)

    @property
    def columns(self) -> int:
        return -(-self.size.width // self.core_px)

    @property
    def window_px(self) -> int:
        return self.core_px + 2 * self.halo_px

    def __len__(self) -> int:
        return self.rows * self.columns

    def block(self, row: int, column: int) -> Block:
        """The block at ``row``, ``column``. Its core may reach over the plane's right and bottom edge."""
        core = Region(row * self.core_px, column * self.core_px, self.core_px, self.core_px)
        return Block(row, column, core, core.expanded(self.halo_px))

    def __iter__(self) -> Iterator[Block]:
        """Every block once, along a Z-order curve: blocks that follow each other lie beside each other on the glass.

        The reader's cache of decoded tiles then serves the next block in both directions, however wide the slide is.
        """
        cells = ((row, column) for row in range(self.rows) for column in range(self.columns))
        for row, column in sorted(cells, key=lambda cell: _interleave(*cell)):
            yield self.block(row, column)


def _interleave(row: int, column: int) -> int:
    """Bits of ``row`` and ``column`` in turn (Morton order)."""
    code = 0
    for bit in range(max(row, column).bit_length()):
        code |= (column >> bit & 1) << (2 * bit) | (row >> bit & 1) << (2 * bit + 1)
    return code
