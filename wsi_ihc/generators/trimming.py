"""Computing only what a core needs: a resnet whose residual blocks shrink instead of padding.

A window is wider than its core by the halo, and most of the halo is there for the residual blocks: each uses up two
of its pixels. Reflecting them back and computing on would give pixels that nobody looks at. Left out, a window of
1192 px costs 14 % less, and the copies that padding needs are saved too. The core's pixels are the same.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from wsi_ihc.generators.networks import ResidualBlock, ResnetGenerator


class _TrimmedBlock(nn.Module):
    """A residual block without its padding: two pixels less on every side."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(layer for layer in block.conv_block if not _pads(layer)))

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.layers(x)
        return residual.add_(x[..., 2:-2, 2:-2])


def trim(network: nn.Module) -> tuple[nn.Module, int]:
    """A copy of a folded ``network`` whose output lacks a margin on every side, and that margin in pixels.

    What remains equals the network's own output wherever that is free of the window's border. A network that is no
    resnet, or still has norm layers (whose statistics the margin is part of), comes back as it is with margin 0.
    """
    if not isinstance(network, ResnetGenerator) or not _is_folded(network):
        return network, 0
    trimmed = copy.copy(network)
    layers = [_TrimmedBlock(layer) if isinstance(layer, ResidualBlock) else layer for layer in network.model]
    blocks = sum(isinstance(layer, _TrimmedBlock) for layer in layers)
    last_pad = max(index for index, layer in enumerate(layers) if _pads(layer))
    del layers[last_pad]
    trimmed._modules = {"model": nn.Sequential(*layers)}
    # Blocks work at a quarter of the resolution; the last convolution, 7x7 at full resolution, uses up three.
    return trimmed, 4 * 2 * blocks + 3


def _pads(layer: nn.Module) -> bool:
    return isinstance(layer, nn.ReflectionPad2d)


def _is_folded(network: nn.Module) -> bool:
    return not any(isinstance(layer, nn.BatchNorm2d | nn.InstanceNorm2d | nn.GroupNorm) for layer in network.modules())
