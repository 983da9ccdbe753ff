import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_ihc.pyramid.blocks import BlockGrid
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.pyramid.levels import TILE_PX

sizes = st.builds(Size, st.integers(1, 5000), st.integers(1, 5000))


@given(sizes, st.integers(1, 4), st.integers(0, 200))
def test_cores_partition_the_plane_and_windows_are_alike(size: Size, tiles: int, halo: int) -> None:
    grid = BlockGrid(size, tiles * TILE_PX, halo)
    covered = np.zeros((grid.rows, grid.columns), int)
    for block in grid:
        covered[block.row, block.column] += 1
        assert (block.core.top, block.core.left) == (block.row * grid.core_px, block.column * grid.core_px)
        assert block.window.size == (grid.window_px, grid.window_px)
        assert block.core.relative_to(block.window).top == halo
    assert (covered == 1).all()
    assert covered.size == len(grid)
    # No block lies wholly outside the plane, and none of the plane is left out.
    assert (grid.rows - 1) * grid.core_px < size.height <= grid.rows * grid.core_px
    assert (grid.columns - 1) * grid.core_px < size.width <= grid.columns * grid.core_px


def test_the_order_stays_near_itself() -> None:
    """Along the Z-order curve any four blocks in a row from a multiple of four lie in one 2 x 2 square."""
    cells = [(block.row, block.column) for block in BlockGrid(Size(4096, 4096), 512, 0)]
    for start in range(0, len(cells), 4):
        rows, columns = zip(*cells[start : start + 4], strict=True)
        assert max(rows) - min(rows) == max(columns) - min(columns) == 1


@pytest.mark.parametrize("core", [0, 500, -512])
def test_cores_are_whole_tiles(core: int) -> None:
    with pytest.raises(ValueError, match="multiple of 512"):
        BlockGrid(Size(10, 10), core, 0)
