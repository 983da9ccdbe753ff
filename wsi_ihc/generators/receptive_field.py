"""Measures the receptive field on the network itself: the halo is exact, neither too small nor too large."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from wsi_ihc.generators.attention import AttentionBlock
from wsi_ihc.generators.blur import BlurDown
from wsi_ihc.generators.builtin import Identity, Recolour

_LONGEST_STRIP_PX = 1 << 15


def measure_alignment(network: nn.Module) -> int:
    """Windows must start on, and have sides of, multiples of this many pixels: the product of the strides down."""
    # An attention gate compares two levels: its stride is parallel to that of its level, and does not multiply.
    beside = {gate.theta for gate in network.modules() if isinstance(gate, AttentionBlock)}
    halving = [module for module in network.modules() if isinstance(module, nn.Conv2d | BlurDown)]
    return math.prod(max(module.stride) for module in halving if module not in beside)


@torch.inference_mode()
def measure_halo(network: nn.Module) -> int:
    """Width of the border around a core on which its stained pixels depend, rounded up to the network's alignment.

    Half of a strip is NaN, and NaN survives every operation: a stained pixel is NaN exactly if a NaN lies in its
    receptive field, for any weights. All four directions are measured. Norm layers are left out, because statistics of
    the whole window would spread NaN everywhere.
    """
    if isinstance(network, Identity | Recolour):
        return 0
    align = measure_alignment(network)
    probe = _without_norms(network)
    reach = max(_reach(probe, align, quarter_turns) for quarter_turns in range(4))
    return math.ceil(reach / align) * align


def _reach(network: nn.Module, align: int, quarter_turns: int) -> int:
    """Number of NaN columns beyond the border of the NaN half; the strip is turned for the other directions."""
    half = align * math.ceil(128 / align)
    while half <= _LONGEST_STRIP_PX:
        # Two pixels on the short side at the lowest resolution: reflecting borders need them.
        strip = torch.zeros(1, 3, 2 * align, 2 * half)
        strip[..., :half] = torch.nan
        stained = network(strip.rot90(quarter_turns, (-2, -1))).rot90(-quarter_turns, (-2, -1))
        tainted = stained[..., half:].isnan().any(dim=1).any(dim=1)[0]
        if not tainted.all():
            return int(tainted.sum())
        half *= 2
    raise ValueError(f"a generator that sees farther than {_LONGEST_STRIP_PX} px cannot be tiled")


def _without_norms(network: nn.Module) -> nn.Module:
    """A float32 copy on the CPU with identities in place of norm layers."""
    probe = copy.deepcopy(network).float().cpu().eval()
    for sequence in [module for module in probe.modules() if isinstance(module, nn.Sequential)]:
        for index, layer in enumerate(sequence):
            if isinstance(layer, nn.BatchNorm2d | nn.InstanceNorm2d | nn.GroupNorm):
                sequence[index] = nn.Identity()
    return probe
