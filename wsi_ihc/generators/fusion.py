"""Convolution, bias and rectifier as one cuDNN kernel: a separate rectifier reads and writes every activation again."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class _RectifiedConvolution(nn.Module):
    """``relu(conv(x))``."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        assert isinstance(convolution.padding, tuple)
        self.convolution, self._padding = convolution, convolution.padding

    def forward(self, x: Tensor) -> Tensor:
        conv = self.convolution
        rectified: Tensor = torch.cudnn_convolution_relu(
            x, conv.weight, conv.bias, conv.stride, self._padding, conv.dilation, conv.groups
        )
        return rectified


def fuse_rectifiers(network: nn.Module) -> nn.Module:
    """A copy of ``network`` that shares its weights, for CUDA devices only."""
    if isinstance(network, nn.Sequential):
        return nn.Sequential(*_fused(list(network)))
    fused = copy.copy(network)
    fused._modules = {name: fuse_rectifiers(child) for name, child in network.named_children()}
    return fused


def _fused(layers: list[nn.Module]) -> list[nn.Module]:
    fused: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.ReLU) and fused and isinstance(fused[-1], nn.Conv2d):
            fused[-1] = _RectifiedConvolution(fused[-1])
        else:
            fused.append(fuse_rectifiers(layer))
    return fused
