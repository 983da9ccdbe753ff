"""Folds norm layers into the convolutions before them: with fixed statistics they are a scale and a shift."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from wsi_ihc.errors import GeneratorError
from wsi_ihc.generators.norm_statistics import Moments, Norm, NormStatistics, norm_layers

_Convolution = nn.Conv2d | nn.ConvTranspose2d


def apply_statistics(network: nn.Module, statistics: NormStatistics) -> nn.Module:
    """A copy of ``network`` in eval mode with every norm layer folded into the convolution before it.

    Dropout is removed. The arithmetic is float64, so folding costs one rounding of the weights to float32.

    Raises:
        GeneratorError: the statistics belong to another network.
    """
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    norms = norm_layers(folded)
    channels = {name: len(mean) for name, (mean, _) in statistics.layers.items()}
    if channels != {name: norm.num_features for name, norm in norms.items()}:
        raise GeneratorError(
            f"normalisation statistics of {len(channels)} layers are of another generator than this one "
            f"with {len(norms)} norm layers; calibrate again"
        )
    names: dict[nn.Module, str] = {norm: name for name, norm in norms.items()}
    for sequence in [module for module in folded.modules() if isinstance(module, nn.Sequential)]:
        _fold_sequence(sequence, names, statistics)
    return folded


def scale_and_shift(norm: nn.Module, moments: Moments) -> tuple[Tensor, Tensor]:
    """``norm`` with fixed moments, as ``scale * x + shift`` per channel, float64 on the CPU."""
    assert isinstance(norm, Norm)
    mean, variance = (torch.from_numpy(np.asarray(values, dtype=np.float64)) for values in moments)
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double().cpu()
    shift = -mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double().cpu()
    return scale, shift


def _fold_sequence(sequence: nn.Sequential, names: Mapping[nn.Module, str], statistics: NormStatistics) -> None:
    """Rebuilds ``sequence`` in place: norms go into the convolution before them, dropout and identities are removed."""
    kept: list[nn.Module] = []
    for layer in sequence:
        if layer in names:
            conv = kept[-1]
            assert isinstance(conv, _Convolution)
            _fold(conv, *scale_and_shift(layer, statistics.layers[names[layer]]))
        elif not isinstance(layer, nn.Dropout | nn.Identity):
            kept.append(layer)
    sequence._modules.clear()
    sequence.extend(kept)


@torch.no_grad()
def _fold(conv: _Convolution, scale: Tensor, shift: Tensor) -> None:
    """``scale * conv(x) + shift`` as a convolution."""
    weight = conv.weight.double()
    # Transposed convolutions keep their output channels in the second dimension.
    shape = (1, -1, 1, 1) if isinstance(conv, nn.ConvTranspose2d) else (-1, 1, 1, 1)
    bias = conv.bias.double() if conv.bias is not None else torch.zeros_like(shift)
    conv.weight.copy_(weight * scale.view(shape))
    conv.bias = nn.Parameter((bias * scale + shift).to(conv.weight.dtype), requires_grad=False)
