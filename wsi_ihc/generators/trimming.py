"""Computes only the pixels that a core needs: the residual blocks of a resnet shrink instead of padding.

A window is wider than its core by the halo, and most of the halo serves the residual blocks: each uses up two pixels.
With padding, the network would go on to compute pixels that are then cut off. Without them a window of 1192 px costs
14 % less, and padding needs no copies. The pixels of the core are the same.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from wsi_ihc.generators.networks import Detour, ResidualBlock, ResnetGenerator


class _TrimmedBlock(nn.Module):
    """A residual block without its padding: its output is two pixels smaller on every side."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(_unpadded(layer) for layer in block.conv_block if not _pads(layer)))

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.layers(x)
        return residual.add_(x[..., 2:-2, 2:-2])


class _TrimmedDetour(nn.Module):
    """A detour whose output is ``margin`` pixels smaller on every side."""

    def __init__(self, detour: Detour, layers: nn.Sequential, margin: int) -> None:
        super().__init__()
        self.layers, self.scale, self._margin = layers, detour.scale, margin

    def forward(self, x: Tensor) -> Tensor:
        past = x[..., self._margin : -self._margin, self._margin : -self._margin]
        return torch.addcmul(self.layers(x), past, self.scale)


def trim(network: nn.Module) -> tuple[nn.Module, int]:
    """A copy of a folded ``network`` whose output lacks a margin on every side, and that margin in pixels.

    The output equals that of the network wherever the border of the window has no influence. A network that is no
    resnet, or has norm layers (the margin is part of their statistics), is returned unchanged with margin 0.
    """
    if not isinstance(network, ResnetGenerator) or not _is_folded(network):
        return network, 0
    layers, margin = _trimmed(network.model)
    last_pad = max(index for index, layer in enumerate(layers) if _pads(layer))
    del layers[last_pad]
    trimmed = copy.copy(network)
    trimmed._modules = {"model": layers}
    # The last convolution, 7x7 at full resolution, uses up three.
    return trimmed, margin + 3


def _trimmed(layers: nn.Sequential) -> tuple[nn.Sequential, int]:
    """``layers`` with shrinking residual blocks, and by how many pixels of its own output each side shrinks."""
    trimmed: list[nn.Module] = []
    margin = 0
    for layer in layers:
        match layer:
            case ResidualBlock():
                trimmed.append(_TrimmedBlock(layer))
                margin += 2
            case Detour():
                inner, inner_margin = _trimmed(layer.layers)
                trimmed.append(_TrimmedDetour(layer, inner, inner_margin))
                margin += inner_margin
            case nn.Upsample() | nn.ConvTranspose2d():
                trimmed.append(layer)
                margin *= 2
            case _:
                trimmed.append(layer)
    return nn.Sequential(*trimmed), margin


def _unpadded(layer: nn.Module) -> nn.Module:
    """A convolution that pads with zeros, without its padding; any other layer as it is."""
    if not isinstance(layer, nn.Conv2d) or layer.padding == (0, 0):
        return layer
    unpadded = copy.copy(layer)
    unpadded.padding = (0, 0)
    return unpadded


def _pads(layer: nn.Module) -> bool:
    return isinstance(layer, nn.ReflectionPad2d)


def _is_folded(network: nn.Module) -> bool:
    return not any(isinstance(layer, nn.BatchNorm2d | nn.InstanceNorm2d | nn.GroupNorm) for layer in network.modules())
