"""Statistics of norm layers pooled over a sample of a slide's tissue."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsi_ihc.errors import GeneratorError
from wsi_ihc.generators.attention import AttentionBlock
from wsi_ihc.generators.folding import scale_and_shift
from wsi_ihc.generators.networks import Detour, ResidualBlock, ResnetGenerator, SkipBlock, UnetGenerator
from wsi_ihc.generators.norm_statistics import Moments, NormStatistics, float64_array, norm_layers, running_moments
from wsi_ihc.generators.pixels import to_tensor
from wsi_ihc.generators.receptive_field import measure_alignment

_KEPT_BYTES = 384 << 20
"""Activations of the whole sample that need more bytes are not kept, but computed twice."""


@torch.no_grad()
def pool_statistics(
    network: nn.Module, sample: Iterable[NDArray[np.uint8]], *, device: str | torch.device = "cpu"
) -> NormStatistics:
    """Statistics of every norm layer, pooled over all windows of ``sample``.

    This is one forward pass of the whole sample in which every norm layer has the statistics of all windows together:
    layer k is measured after layers 1 to k - 1 have been fixed.

    Memory bound: two layers' activations of the whole sample, 384 MiB each, and one window's.

    Raises:
        GeneratorError: the sample is empty.
    """
    network = copy.deepcopy(network).to(device).eval()
    for module in network.modules():
        if isinstance(module, nn.ReLU | nn.LeakyReLU):
            module.inplace = False
    align = measure_alignment(network)
    windows = [to_tensor(_aligned(torch.from_numpy(window).to(device), align)) for window in sample]
    if not windows or any(not window.numel() for window in windows):
        raise GeneratorError(
            f"normalisation calibrated: no windows of tissue of {align} px or more; check the tissue mask"
        )
    norms = norm_layers(network)
    # A BatchNorm among InstanceNorms, as in an attention gate, keeps the statistics of its training.
    tracking = {norm for norm in norms.values() if norm.track_running_stats}
    kept = tracking if len(tracking) < len(norms) else set()
    calibration = _Calibration({norm: name for name, norm in norms.items()}, windows, kept)
    calibration.advance(network)
    return NormStatistics(calibration.layers)


class _Calibration:
    """A sample inside a network: the last kept activations of each window, and the layers that follow them."""

    def __init__(self, names: Mapping[nn.Module, str], windows: list[Tensor], kept: Collection[nn.Module]) -> None:
        self.names = names
        self.kept = kept
        self.windows = windows
        self.pending: list[Callable[[Tensor], Tensor]] = []
        self.layers: dict[str, Moments] = {}

    def advance(self, module: nn.Module) -> None:
        """Passes the sample through ``module``; a norm layer is measured first, then applied with these statistics."""
        match module:
            case nn.BatchNorm2d() | nn.InstanceNorm2d():
                self._measure(module)
            case nn.Sequential():
                for child in module:
                    self.advance(child)
            case ResidualBlock():
                self._join(module.conv_block, torch.add)
            case Detour():
                self._join(module.layers, module.join)
            case SkipBlock() if module.skip:
                self._join(module.model, lambda x, inner: torch.cat((x, inner), dim=1))
            case AttentionBlock():
                self._attend(module)
            case ResnetGenerator() | UnetGenerator() | SkipBlock():
                self.advance(module.model)
            case _:
                self.pending.append(module)

    def _join(self, branch: nn.Module, join: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Passes the sample through ``branch``, and joins the result with the input that bypassed it."""
        self._settle()
        past = list(self.windows)
        self.advance(branch)
        self._settle()
        for index in range(len(past)):
            self.windows[index] = join(past[index], self.windows[index])

    def _attend(self, block: AttentionBlock) -> None:
        """Passes the sample through an attention block: the way down, the gate, and the way up."""
        down, up = block.ways()
        self._settle()
        past = list(self.windows)
        self.advance(down)
        self._settle()
        gated = [block.gated(x, coarse) for x, coarse in zip(past, self.windows, strict=True)]
        self.advance(up)
        self._settle()
        inner, self.windows = self.windows, gated
        self.advance(block.W)
        self._settle()
        self.windows = [block.join(across, made) for across, made in zip(self.windows, inner, strict=True)]

    def _measure(self, norm: nn.Module) -> None:
        if norm in self.kept:
            self._apply(norm, running_moments(norm))
            return
        held = sum(window.nbytes for window in self.windows)
        moments = []
        keep = False
        for index, window in enumerate(self.windows):
            activations = self._through_pending(window)
            moments.append(_moments(activations))
            if index == 0:
                keep = held * activations.nbytes / window.nbytes <= _KEPT_BYTES
            if keep:
                self.windows[index] = activations
        if keep:
            self.pending.clear()
        self._apply(norm, _pooled(moments))

    def _apply(self, norm: nn.Module, moments: Moments) -> None:
        self.layers[self.names[norm]] = moments
        scale, shift = scale_and_shift(norm, moments)
        self.pending.append(partial(_scaled, scale=scale, shift=shift))

    def _settle(self) -> None:
        for index, window in enumerate(self.windows):
            self.windows[index] = self._through_pending(window)
        self.pending.clear()

    def _through_pending(self, activations: Tensor) -> Tensor:
        for layer in self.pending:
            activations = layer(activations)
        return activations


def _aligned(pixels: Tensor, align: int) -> Tensor:
    """``(n, h, w, 3)`` cut to multiples of the network's alignment."""
    height, width = pixels.shape[1:3]
    return pixels[:, : height - height % align, : width - width % align]


def _moments(activations: Tensor) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    """Number of values per channel, their mean and their biased variance."""
    variance, mean = torch.var_mean(activations, dim=(0, 2, 3), correction=0)
    return activations.numel() // activations.shape[1], float64_array(mean), float64_array(variance)


def _pooled(parts: list[tuple[int, NDArray[np.float64], NDArray[np.float64]]]) -> Moments:
    """The moments of all parts together, in float64."""
    counts, means, variances = (np.array(values, dtype=np.float64) for values in zip(*parts, strict=True))
    weights = counts[:, None] / counts.sum()
    mean = (weights * means).sum(axis=0)
    variance = (weights * (variances + (means - mean) ** 2)).sum(axis=0)
    return mean, variance


def _scaled(activations: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    scale, shift = (values.to(activations)[None, :, None, None] for values in (scale, shift))
    return torch.addcmul(shift, activations, scale)
