"""Distances between the set of real images and the set of generated ones: Fréchet and kernel distance.

FID and KID are these two distances in the feature space of an Inception network. Without its weights, which the user
brings as a file, the built-in ``texture`` space serves to rank runs; its figures are no FID and no KID.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsi_ihc.errors import SettingsError, one_line
from wsi_ihc.measures.bootstrap import Estimate, half_sample_estimate
from wsi_ihc.measures.user_network import load_network

TEXTURE = "texture"
_KID_SUBSET = 1000
MIN_IMAGES = 8
"""Fewer images say nothing about the distance between two sets: no distance is given."""

INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
"""Of ``inception-2015-12-05.pt``, the TorchScript file of the network that FID is defined with. A distance in the space
of any other file is no FID."""


@dataclass(frozen=True, slots=True)
class FeatureSpace:
    """A network from uint8 batches (n, 3, h, w) to features (n, d), and what to call it in a report."""

    name: str
    is_inception: bool
    network: Callable[[Tensor], Tensor]
    distances: tuple[str, str] = ("features_frechet", "features_kernel_x1000")
    """Keys of its Fréchet and kernel distance: FID and KID are those of Inception alone."""

    def features(self, images: Iterable[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Features (n, d) of (height, width, 3) images, one at a time: sizes may differ.

        Raises:
            SettingsError: the network does not give one vector per image.
        """
        rows = [self._one(image) for image in images]
        return np.concatenate(rows) if rows else np.zeros((0, 0))

    def _one(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        batch = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
        try:
            with torch.inference_mode():
                features = self.network(batch)
        except Exception as error:  # whatever a stranger's network raises
            reason = one_line(error)[-200:]
            raise SettingsError(
                f"{self.name}: the feature network fails on an image of {tuple(batch.shape)} ({reason})"
            ) from None
        if (
            not isinstance(features, Tensor)
            or features.ndim != 2
            or len(features) != 1
            or not features.isfinite().all()
        ):
            seen = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise SettingsError(f"{self.name}: expected finite features (n, d), got {seen} for one image")
        return features.double().numpy()


def feature_space(source: str) -> FeatureSpace:
    """The built-in ``texture`` space, or the network in a TorchScript (.pt) or torch.export (.pt2) file.

    The network takes uint8 images (n, 3, h, w); one that refuses bytes gets float32 in [0, 1].

    Raises:
        SettingsError: the file is missing or holds no such network.
    """
    if source == TEXTURE:
        return FeatureSpace(
            "texture (fixed random convolutions, NOT Inception)",
            False,
            TextureNetwork(),
            ("texture_frechet", "texture_kernel_x1000"),
        )
    path = Path(source)
    if not path.is_file():
        raise SettingsError(f"{path}: no such feature network; give a TorchScript or torch.export file, or {TEXTURE!r}")
    digest = file_sha256(path)
    known = digest == INCEPTION_SHA256
    name = path.name if known else f"{path.name} (sha256 {digest[:16]}, not the Inception network of FID)"
    network = _accepting_bytes(load_network(path))
    return FeatureSpace(name, True, network, ("fid", "kid_x1000")) if known else FeatureSpace(name, False, network)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _accepting_bytes(network: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def call(batch: Tensor) -> Tensor:
        try:
            return network(batch)
        except Exception:  # the type depends on how the network was saved; its own complaint comes from the next line
            return network(batch.float() / 255)

    return call


class TextureNetwork(nn.Module):
    """Three layers of fixed random convolutions, pooled to means and deviations: 128 features of colour and texture.

    Random filters separate textures well (Ustyuzhaninov et al. 2017) and need no download. The weights come from a
    seeded NumPy generator, so the space is the same on every machine.
    """

    num_features = 128
    SCALE = 4.0
    """Features of stained images are then of the order of 1, where the cubic kernel is neither flat nor steep."""

    def __init__(self) -> None:
        super().__init__()
        generator = np.random.default_rng(20170413)
        shapes = ((32, 3, 7, 7), (32, 32, 5, 5), (64, 32, 3, 3))
        for index, shape in enumerate(shapes):
            scale = np.sqrt(2 / np.prod(shape[1:]))
            weight = torch.from_numpy((generator.standard_normal(shape) * scale).astype(np.float32))
            self.register_buffer(f"weight{index}", weight)

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) uint8 to (n, 128) float32."""
        values = nn.functional.avg_pool2d(images.float() / 127.5 - 1, 2)
        for index, stride in enumerate((2, 2, 2)):
            weight = self.get_buffer(f"weight{index}")
            values = nn.functional.conv2d(values, weight, stride=stride, padding=weight.shape[-1] // 2).relu()
        pooled = torch.cat([values.mean((2, 3)), values.std((2, 3), unbiased=False)], dim=1)
        return pooled * self.SCALE


class _Computed(nn.Module):
    """Hands features that are already computed to torchmetrics, which expects a network."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(real: NDArray[np.float64], generated: NDArray[np.float64]) -> float:
    """Fréchet distance of Gaussians fitted to features (n, d), by torchmetrics; NaN for fewer than two images."""
    if min(len(real), len(generated)) < 2:
        return float("nan")
    metric = _torchmetrics().fid.FrechetInceptionDistance(feature=_Computed(real.shape[1])).set_dtype(torch.float64)
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(generated), real=False)
    return float(metric.compute())


def kernel_distance(real: NDArray[np.float64], generated: NDArray[np.float64], seed: int = 0) -> float:
    """Kernel distance (cubic polynomial, unbiased) of features (n, d), by torchmetrics; NaN for fewer than two images.

    All images at once up to 1,000; above, the usual mean over 100 random subsets of 1,000.
    """
    n = min(len(real), len(generated))
    if n < 2:
        return float("nan")
    subsets = 100 if n > _KID_SUBSET else 1
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", UserWarning)  # "will save all extracted features": they are here already
        torch.manual_seed(seed)
        metric = _torchmetrics().kid.KernelInceptionDistance(
            feature=_Computed(real.shape[1]), subsets=subsets, subset_size=min(n, _KID_SUBSET)
        )
        metric.update(torch.from_numpy(real), real=True)
        metric.update(torch.from_numpy(generated), real=False)
        return float(metric.compute()[0])


def _torchmetrics() -> Any:
    try:
        import torchmetrics.image.fid
        import torchmetrics.image.kid
    except ImportError:
        raise SettingsError("torchmetrics is not installed; pip install 'wsi-ihc[train]' or use --recipe bci") from None
    return torchmetrics.image


def frechet_estimate(real: NDArray[np.float64], generated: NDArray[np.float64], seed: int) -> Estimate:
    """Fréchet distance, with an interval where features are few enough for it to take seconds."""
    if real.shape[1] > 512:
        return Estimate(frechet_distance(real, generated), float("nan"), float("nan"), len(real))
    return half_sample_estimate(lambda i: frechet_distance(real[i], generated[i]), len(real), seed)


def kernel_estimate(real: NDArray[np.float64], generated: NDArray[np.float64], seed: int) -> Estimate:
    """Kernel distance, with an interval whose halves share one kernel matrix."""
    within_real, within_generated, across = _cubic(real, real), _cubic(generated, generated), _cubic(real, generated)

    def on(indices: NDArray[np.intp]) -> float:
        n = indices.size
        chosen = np.ix_(indices, indices)
        own = sum(k[chosen].sum() - k.diagonal()[indices].sum() for k in (within_real, within_generated))
        return float(own / (n * (n - 1)) - 2 * across[chosen].mean()) if n > 1 else float("nan")

    halves = half_sample_estimate(on, len(real), seed)
    value = kernel_distance(real, generated, seed)
    return Estimate(value, value + halves.low - halves.value, value + halves.high - halves.value, halves.n)


def _cubic(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    product: NDArray[np.float64] = a @ b.T / a.shape[1] + 1
    return product * product * product
