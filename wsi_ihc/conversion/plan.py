"""The plan of a conversion: a pure, printable value, the same for every run of the same settings."""

from __future__ import annotations

from dataclasses import dataclass

from wsi_ihc.pyramid.blocks import BlockGrid
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.tissue import TissueMask

Cell = tuple[int, int]
"""Row and column of a block in the grid."""

Batch = tuple[Cell, ...]
"""Blocks that go through the generator together, always the same ones: a resumed run forms the same batches."""

_JPEG_BYTES_PER_PIXEL = {"jpeg": 0.35, "deflate": 2.0}
"""Seen on stained tissue at quality 85, the pyramid's third included; glass costs almost nothing."""


@dataclass(frozen=True, slots=True)
class ConversionPlan:
    """The blocks that hold tissue, in batches, and what they will cost."""

    grid: BlockGrid
    batches: tuple[Batch, ...]
    tissue_fraction: float
    compression: str

    @property
    def size(self) -> Size:
        """Size of the output's level 0, pixels."""
        return self.grid.size

    @property
    def blocks(self) -> int:
        """Blocks with tissue: those that the generator sees."""
        return sum(len(batch) for batch in self.batches)

    @property
    def megapixels(self) -> float:
        """Stained area, the halo not counted."""
        return self.blocks * self.grid.core_px**2 / 1e6

    @property
    def output_bytes(self) -> int:
        """Rough size of the TIFF."""
        pixels = self.size.height * self.size.width
        return int(_JPEG_BYTES_PER_PIXEL[self.compression] * pixels * self.tissue_fraction + 0.004 * pixels)


def plan_conversion(
    size: Size, mask: TissueMask, *, core_px: int, halo_px: int, batch_size: int, compression: str
) -> ConversionPlan:
    """Groups the blocks that hold tissue into batches, neighbours together.

    The batches follow from the arguments alone, not from what an earlier run has finished: batching may touch the
    last bit of a pixel, so a resumed run must form the batches that an undisturbed one forms.
    """
    grid = BlockGrid(size, core_px, halo_px)
    cells = [(block.row, block.column) for block in grid if mask.any(block.core)]
    batches = tuple(tuple(cells[start : start + batch_size]) for start in range(0, len(cells), batch_size))
    return ConversionPlan(grid, batches, float(mask.pixels.mean()), compression)
