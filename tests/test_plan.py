import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_ihc.conversion.plan import plan_conversion
from wsi_ihc.pyramid.blocks import BlockGrid
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.tissue import TissueMask

sizes = st.builds(Size, st.integers(1, 6000), st.integers(1, 6000))


def _mask(size: Size, seed: int) -> TissueMask:
    rows, columns = -(-size.height // 64), -(-size.width // 64)
    return TissueMask(np.random.default_rng(seed).random((rows, columns)) < 0.02, 64.0, size)


@settings(max_examples=30)
@given(sizes, st.integers(0, 9), st.sampled_from([512, 1024, 1536]), st.integers(1, 5))
def test_batches_hold_every_block_with_tissue_once(size: Size, seed: int, core: int, batch: int) -> None:
    mask = _mask(size, seed)
    plan = plan_conversion(size, mask, core_px=core, halo_px=8, batch_size=batch, compression="jpeg")
    cells = [cell for group in plan.batches for cell in group]
    wanted = {(block.row, block.column) for block in BlockGrid(size, core, 8) if mask.any(block.core)}
    assert len(cells) == len(set(cells)) == plan.blocks
    assert set(cells) == wanted
    assert all(len(group) == batch for group in plan.batches[:-1])


def test_a_slide_without_tissue_has_nothing_to_do() -> None:
    size = Size(3000, 3000)
    empty = TissueMask(np.zeros((47, 47), bool), 64.0, size)
    plan = plan_conversion(size, empty, core_px=1024, halo_px=0, batch_size=4, compression="jpeg")
    assert plan.batches == ()
    assert plan.output_bytes > 0
