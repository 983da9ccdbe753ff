"""The losses of the paper and of its two baselines, each a pure function of tensors.

Images are ``(n, c, height, width)`` in [-1, 1]; every function returns one scalar, a mean, so that weights do not
depend on the size of the crop or of the batch.

Sources: pix2pix, Isola et al. 2017 (arXiv 1611.07004); least squares, Mao et al. 2017 (arXiv 1611.04076);
pyramid pix2pix, Liu et al. 2022 (arXiv 2204.11425); variance penalty, arXiv 2506.18371.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from wsi_ihc.measures import dyes

Adversarial = Literal["bce", "lsgan"]
Estimator = Literal["biased", "unbiased"]


def adversarial(logits: Tensor, *, real: bool, kind: Adversarial = "bce") -> Tensor:
    """How far the discriminator's ``logits`` are from calling every patch real (or generated).

    ``bce`` is equation 1 of pix2pix in the non-saturating form that it trains with: the generator minimises
    ``adversarial(D(x, G(x)), real=True)``. ``lsgan`` is equation 9 of Mao et al. with labels 0 and 1, without the half.
    """
    wanted = torch.full_like(logits, float(real))
    match kind:
        case "bce":
            return F.binary_cross_entropy_with_logits(logits, wanted)
        case "lsgan":
            return F.mse_loss(logits, wanted)


def l1(generated: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference: equation 3 of pix2pix."""
    return (generated - target).abs().mean()


def pyramid_l1(generated: Tensor, target: Tensor, weights: Sequence[float]) -> Tensor:
    """``sum_i weights[i] * L1`` at octave ``i + 1``: the multi-scale loss of pyramid pix2pix, at 1/2, 1/4, …

    The full-size term is ``l1``. Without weights the sum is zero.
    """
    total = generated.new_zeros(())
    # The octave is linear, so the difference of two octaves is the octave of the difference: half the work.
    difference = generated - target
    for weight in weights:
        difference = octave(difference)
        total = total + weight * difference.abs().mean()
    return total


def octave(images: Tensor) -> Tensor:
    """The next octave of a Gaussian pyramid: four 3x3 blurs of sigma 1, then every second row and column.

    Borders are reflected without repeating the edge; ``(…, h, w)`` becomes ``(…, ceil(h / 2), ceil(w / 2))``. Blur and
    subsampling are linear and separable, so a side is one small matrix and the whole octave two matrix products.
    """
    rows = _octave_matrix(images.shape[-2], images)
    columns = _octave_matrix(images.shape[-1], images)
    smaller: Tensor = rows @ images @ columns.T
    return smaller


def _octave_matrix(side: int, like: Tensor) -> Tensor:
    """``(ceil(side / 2), side)``: what an octave does to a column of ``side`` pixels."""
    taps = torch.exp(-(torch.arange(-1, 2, dtype=torch.float64, device=like.device) ** 2) / 2)
    taps = taps / taps.sum()
    identity = torch.eye(side, dtype=torch.float64, device=like.device)
    mirrored = F.pad(identity[None, None], (0, 0, 1, 1), mode="reflect")[0, 0]
    blur = taps[0] * mirrored[:-2] + taps[1] * mirrored[1:-1] + taps[2] * mirrored[2:]
    octave_of_column: Tensor = torch.linalg.matrix_power(blur, 4)[::2].to(like.dtype)
    return octave_of_column


def pooled_dab(generated: Tensor, target: Tensor, pool_px: int) -> Tensor:
    """L1 between the mean DAB densities of squares of ``pool_px`` pixels; what is left at a border does not count.

    Densities are natural, by Ruifrok and Johnston's haematoxylin and DAB. Where the place of brown is uncertain, an
    absolute difference per pixel asks for its median, often nothing; over a square it asks for the right amount.
    """
    densities = (F.avg_pool2d(dab_density(images), pool_px) for images in (generated, target))
    return l1(*densities)


def dab_density(images: Tensor) -> Tensor:
    """``(n, 3, h, w)`` in [-1, 1] to the natural density of DAB, ``(n, 1, h, w)``; negative where colours say so."""
    light = (images + 1).clamp_min(0) * 127.5
    density = -torch.log((light + 1) / 256)
    dab = np.linalg.pinv(np.array([dyes.HAEMATOXYLIN, dyes.DAB]))[:, 1]
    weights = torch.as_tensor(dab, dtype=images.dtype, device=images.device)
    return torch.einsum("nchw,c->nhw", density, weights)[:, None]


def variance(
    generated: Tensor,
    target: Tensor,
    *,
    estimator: Estimator = "unbiased",
    over_ranks: bool = False,
    pool_px: int = 1,
) -> Tensor:
    """``mean over (c, h, w) of |Var_n(target) - Var_n(generated)|``: figure 4 of arXiv 2506.18371.

    The variance runs over the batch, at each pixel and channel: a generator that answers every input with the same
    picture pays for it. ``over_ranks`` joins the batches of all processes first, so that the penalty is that of
    the whole batch however many devices share it; the gradient flows back through the exchange.

    With ``pool_px`` of 1, as published, a pixel that the H&E does not decide is drawn to the *median* over batches of
    ``Var_n(target)``. Where few images of a batch differ there, that median is 0: the penalty then asks for no variance
    at all. ``pool_px`` averages both variances over squares of that side before the absolute value, which asks for the
    mean instead. Rows and columns that fill no square do not count.

    Raises:
        ValueError: for a batch of one, whose variance says nothing, or images smaller than a square.
    """
    if over_ranks and dist.is_initialized() and dist.get_world_size() > 1:
        generated, target = gather(generated), gather(target)
    if generated.shape[0] < 2:
        raise ValueError("the variance over a batch needs at least two images")
    divisor = generated.shape[0] - int(estimator == "unbiased")
    difference = _spread(target, divisor) - _spread(generated, divisor)
    if pool_px > 1:
        if min(difference.shape[-2:]) < pool_px:
            raise ValueError(f"images of {tuple(difference.shape[-2:])} px hold no square of {pool_px} px")
        # The mean is linear, so the difference of two means is the mean of the difference: half the work.
        difference = F.avg_pool2d(difference, pool_px)
    penalty: Tensor = difference.abs().mean()
    return penalty


def least_share_rewarded(images: int) -> float:
    """The rarest stain that the per-pixel variance penalty still asks for, as a share of images, in such a batch.

    A pixel is brown in a share p of images. ``Var_n`` of the batch is above 0 in the median only if
    ``p^n + (1 - p)^n < 1/2``. The answer is the smallest such p; no p will do for a batch of two: 1.0.
    """
    if images < 3:
        return 1.0
    low, high = 0.0, 0.5
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if middle**images + (1 - middle) ** images < 0.5 else (middle, high)
    return high


def _spread(images: Tensor, divisor: int) -> Tensor:
    """Variance over the batch; written out, because torch's own is slow along the first axis."""
    spread: Tensor = (images - images.mean(dim=0)).square().sum(dim=0) / divisor
    return spread


def gather(shard: Tensor) -> Tensor:
    """All processes' ``(n, …)`` shards as one ``(ranks * n, …)`` tensor, differentiable."""
    gathered: Tensor = _Gather.apply(shard)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    """``all_gather`` whose gradient is the sum over processes of what each of them owes to this shard."""

    @staticmethod
    def forward(ctx: Any, shard: Tensor) -> Tensor:
        ctx.count = shard.shape[0]
        shards = [torch.empty_like(shard, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        dist.all_gather(shards, shard.contiguous())
        return torch.cat(shards)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Tensor:
        owed = grad_outputs[0].contiguous().clone()
        dist.all_reduce(owed)
        first = dist.get_rank() * ctx.count
        mine: Tensor = owed[first : first + ctx.count]
        return mine
