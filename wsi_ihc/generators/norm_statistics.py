"""Fixed means and variances, in place of those that a norm layer would measure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from wsi_ihc.errors import GeneratorError

Norm = nn.BatchNorm2d | nn.InstanceNorm2d
"""The layers that have statistics."""

Moments = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Mean and biased variance, one value per channel."""


@dataclass(frozen=True)
class NormStatistics:
    """Mean and biased variance of every norm layer's input, float64, one value per channel.

    Saved with a run, they make its pixels reproducible, and a resumed run needs no calibration.
    """

    layers: Mapping[str, Moments]

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Arrays by name, ready for ``numpy.savez``."""
        return {
            f"{layer}/{kind}": values
            for layer, pair in self.layers.items()
            for kind, values in zip(("mean", "variance"), pair, strict=True)
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float64]]) -> NormStatistics:
        """The inverse of ``to_arrays``; accepts the result of ``numpy.load`` for an npz file.

        Raises:
            GeneratorError: the mean or variance of a layer is missing.
        """
        layers = sorted({name.rpartition("/")[0] for name in arrays})
        try:
            return cls({layer: (arrays[f"{layer}/mean"], arrays[f"{layer}/variance"]) for layer in layers})
        except KeyError as error:
            raise GeneratorError(f"normalisation statistics: {error.args[0]} is missing; calibrate again") from None

    @property
    def sha256(self) -> str:
        """Digest of names and values, independent of the order of the layers."""
        digest = hashlib.sha256()
        for name, values in sorted(self.to_arrays().items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(values, dtype="<f8").tobytes())
        return digest.hexdigest()


def norm_layers(network: nn.Module) -> dict[str, Norm]:
    """The norm layers of a network by name, in the order of their definition."""
    return {name: module for name, module in network.named_modules() if isinstance(module, Norm)}


def running_moments(norm: nn.Module) -> Moments:
    """The statistics that a BatchNorm gathered in training.

    Raises:
        GeneratorError: the layer has none, as InstanceNorm.
    """
    mean, variance = norm.running_mean, norm.running_var
    if not isinstance(mean, Tensor) or not isinstance(variance, Tensor):
        kind = type(norm).__name__
        raise GeneratorError(f"normalisation running: {kind} has no running statistics; use calibrated (or auto)")
    return float64_array(mean), float64_array(variance)


def float64_array(values: Tensor) -> NDArray[np.float64]:
    """The values of a tensor on any device, as a float64 array."""
    array: NDArray[np.float64] = values.detach().double().cpu().numpy()
    return array
