"""The size of blocks: least arithmetic for the tissue there is, within the memory allowed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_ihc.config import ComputeSettings
from wsi_ihc.conversion.block_size import USUAL_CORE_PX, MemoryBudget, _blocks_with_tissue, choose_core_px
from wsi_ihc.conversion.computation import Computation
from wsi_ihc.errors import SettingsError
from wsi_ihc.generators import Architecture
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.tissue import TissueMask

FULL_SIZE = Architecture(kind="resnet", blocks=9, base_channels=64, norm="batch")
CPU = Computation("cpu", "bfloat16", "torch", None)


def tissue(side_px: int, *, specks_every: int | None = None) -> TissueMask:
    """A plane of tissue at 16 plane pixels per mask pixel, or one speck in every square of that many pixels."""
    mask = np.ones((side_px // 16, side_px // 16), bool)
    if specks_every:
        mask[:] = False
        mask[8 :: specks_every // 16, 8 :: specks_every // 16] = True
    return TissueMask(mask, 16.0, Size(side_px, side_px))


def choose(mask: TissueMask, memory: str, architecture: Architecture = FULL_SIZE, halo_px: int = 84) -> int:
    budget = MemoryBudget.of(ComputeSettings.model_validate({"memory": memory}), architecture, CPU)
    return choose_core_px(architecture, mask, halo_px=halo_px, align_px=4, budget=budget)


def test_memory_buys_larger_blocks() -> None:
    mask = tissue(15360)
    cores = [choose(mask, memory) for memory in ("800MB", "1.2GB", "2GB", "4GB", "8GB")]
    assert cores == sorted(cores)
    assert cores[0] == 512
    assert cores[-1] > 2048


def test_scattered_tissue_is_followed_closely() -> None:
    """A speck costs a whole block, whatever the halo of smaller ones."""
    assert choose(tissue(16384, specks_every=4096), "8GB") == 512


def test_a_small_slide_is_no_reason_for_large_blocks() -> None:
    assert choose(tissue(1024), "8GB") == 1024


@given(st.integers(500, 20_000), st.sampled_from([8, 24, 64]), st.sampled_from([20, 84]))
def test_the_choice_keeps_within_the_memory(megabytes: int, channels: int, halo_px: int) -> None:
    architecture = FULL_SIZE.model_copy(update={"base_channels": channels})
    compute = ComputeSettings.model_validate({"memory": megabytes * 10**6})
    budget = MemoryBudget.of(compute, architecture, CPU)
    try:
        core = choose_core_px(architecture, tissue(8192), halo_px=halo_px, align_px=4, budget=budget)
    except SettingsError:
        assert budget.needed(512 + 2 * halo_px) > budget.allowed
    else:
        assert budget.needed(core + 2 * halo_px) <= budget.allowed
        assert budget.batch(core + 2 * halo_px) >= 1


@given(
    size=st.builds(Size, st.integers(1, 9000), st.integers(1, 9000)),
    downsample=st.floats(1, 64),
    halo_px=st.sampled_from([4, 68, 84]),
)
def test_any_plane_and_mask_have_a_block_size(size: Size, downsample: float, halo_px: int) -> None:
    """A mask whose sides were rounded down ends before the plane, and a thin last block may start beyond it."""
    shape = [max(1, int(length / downsample)) for length in size]
    mask = TissueMask(np.ones(shape, bool), downsample, size)
    core = choose(mask, "8GB", halo_px=halo_px)
    assert core in range(512, 4097, 512)


@pytest.mark.parametrize("core_px", [512, 1024, 1536, 4096])
@given(size=st.builds(Size, st.integers(1, 20_000), st.integers(1, 20_000)), downsample=st.floats(1, 64))
def test_every_block_of_a_plane_of_tissue_holds_tissue(core_px: int, size: Size, downsample: float) -> None:
    shape = [max(1, int(length / downsample)) for length in size]
    mask = TissueMask(np.ones(shape, bool), downsample, size)
    assert _blocks_with_tissue(mask, core_px) == math.prod(-(-length // core_px) for length in size)


def test_too_little_memory_is_refused_with_the_least_that_would_do() -> None:
    with pytest.raises(SettingsError, match=r"compute.memory=500MB: .* needs \d+MB at the least"):
        choose(tissue(4096), "500MB")


def test_alignment_is_kept() -> None:
    deep = Architecture(kind="unet", downs=10, base_channels=4, norm="batch")
    budget = MemoryBudget.of(ComputeSettings(), deep, CPU)
    assert choose_core_px(deep, tissue(8192), halo_px=1024, align_px=1024, budget=budget) % 1024 == 0


def test_without_arithmetic_there_is_nothing_to_choose() -> None:
    identity = Architecture(kind="identity")
    assert choose(tissue(16384), "1MB", identity, halo_px=0) == USUAL_CORE_PX


def test_a_gpu_is_given_half_of_what_is_free() -> None:
    budget = MemoryBudget.of(ComputeSettings(), FULL_SIZE, Computation("cuda", "float16", "torch", 40_000_000_000))
    assert budget.allowed == 20_000_000_000
    assert 2 <= budget.batch(2048 + 168) <= 16


@pytest.mark.parametrize("text", ["lots", "-1GB", "2 TeraBees"])
def test_memory_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="memory"):
        ComputeSettings.model_validate({"memory": text})
