"""How large blocks should be: large ones pay less halo, small ones follow the tissue and take less memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from wsi_ihc.config import ComputeSettings
from wsi_ihc.conversion.computation import Computation
from wsi_ihc.errors import SettingsError
from wsi_ihc.generators.networks import LEARNED_KINDS, Architecture
from wsi_ihc.tissue import TissueMask

USUAL_CORE_PX = 1024
"""Used where the choice has no effect: generators without arithmetic, and normalisation tile by tile."""

_CORES_PX = tuple(range(512, 4097, 512))
_MOST_BLOCKS_IN_A_BATCH = 16
_FEATURE_MAPS = 4.8
"""Maps of ``base_channels`` at full resolution that a pass takes at its peak, workspaces and the blocks that wait
included (docs/benchmarks.md)."""
_SKIPPED_MAPS = 1.5
"""Memory that skip connections hold meanwhile: ``base_channels`` maps at full resolution, and twice as many at half."""
_BLURRED_MAPS = 2.6
"""Additional memory of a convolution before a blur: twice ``base_channels`` maps at full resolution."""
_PROCESS_BYTES = 450_000_000
"""Further memory of a process on a CPU: libraries, weights, the reader's cache, the allocator's reserve."""
_CPU_BYTES = 2_000_000_000


@dataclass(frozen=True)
class MemoryBudget:
    """The memory that a conversion may take on the device, and the memory of one window of this generator."""

    allowed: int
    fixed: int
    bytes_per_pixel: float

    @classmethod
    def of(cls, compute: ComputeSettings, architecture: Architecture, computation: Computation) -> MemoryBudget:
        dtype: torch.dtype = getattr(torch, computation.precision)
        maps = _FEATURE_MAPS + _SKIPPED_MAPS * architecture.skips
        maps += _BLURRED_MAPS * (architecture.downsampling == "blurred")
        per_pixel = maps * architecture.base_channels * dtype.itemsize
        if computation.free_bytes is None:
            return cls(_CPU_BYTES if compute.memory == "auto" else compute.memory, _PROCESS_BYTES, per_pixel)
        return cls(computation.free_bytes // 2 if compute.memory == "auto" else compute.memory, 0, per_pixel)

    def needed(self, window_px: int) -> int:
        """Bytes for one window of that side."""
        return int(self.fixed + self.bytes_per_pixel * window_px**2)

    def batch(self, window_px: int) -> int:
        """Windows that fit at once, at least one."""
        fitting = (self.allowed - self.fixed) / (self.bytes_per_pixel * window_px**2)
        return max(1, min(_MOST_BLOCKS_IN_A_BATCH, int(fitting)))


def choose_core_px(
    architecture: Architecture, mask: TissueMask, *, halo_px: int, align_px: int, budget: MemoryBudget
) -> int:
    """The core side that takes least arithmetic for all blocks with tissue, of those whose window fits the budget.

    Raises:
        SettingsError: the budget is too small for the smallest window.
    """
    if architecture.kind not in LEARNED_KINDS:
        return USUAL_CORE_PX
    possible = [core for core in _CORES_PX if core % align_px == 0]
    fitting = [core for core in possible if budget.needed(core + 2 * halo_px) <= budget.allowed]
    if not fitting:
        least = np.ceil(budget.needed(possible[0] + 2 * halo_px) / 1e6)
        raise SettingsError(
            f"compute.memory={budget.allowed / 1e6:.0f}MB: this generator needs {least:.0f}MB at the least"
        )
    # A resnet's blocks compute half of the halo, on average (trimming.py).
    computed_px = halo_px if architecture.kind == "resnet" else 2 * halo_px

    return min(fitting, key=lambda core_px: _blocks_with_tissue(mask, core_px) * (core_px + computed_px) ** 2)


def _blocks_with_tissue(mask: TissueMask, core_px: int) -> int:
    """Near enough: blocks that are touched by nothing but the soft edge of the mask are not counted."""
    tissue = mask.pixels
    for axis, length in enumerate(mask.size):
        # The mask's last pixel also covers what its floored side leaves over: a thin last block starts there.
        starts = (np.arange(0, length, core_px) / mask.downsample).astype(int).clip(max=tissue.shape[axis] - 1)
        tissue = np.logical_or.reduceat(tissue, starts, axis=axis)
    return int(tissue.sum())
