"""How good a generator is on held-out pairs, in a few numbers for choosing among its steps. Not an evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsi_ihc.training import losses
from wsi_ihc.training.compute import Compute
from wsi_ihc.training.data import Batch
from wsi_ihc.training.distributed import World, averaged
from wsi_ihc.training.monitoring import Measures

Row = tuple[Tensor, Tensor, Tensor]
"""H&E, real and generated."""


def validate(
    generator: nn.Module, batches: Sequence[Batch], world: World, compute: Compute, strips: int
) -> tuple[Measures, list[Row]]:
    """Mean measures over all batches of one, shared out over the processes, and the first ``strips`` as pictures."""
    sums: Measures = dict.fromkeys(("l1", "pyramid", "psnr", "dab_error", "dab_bias", "pairs"), 0.0)
    rows: list[Row] = []
    for number, batch in enumerate(batches):
        mine, shown = number % world.ranks == world.rank, number < strips and world.leads
        if not (mine or shown):
            continue
        he, real = compute.send(batch.he), compute.send(batch.ihc)
        with torch.no_grad(), compute.autocast():
            generated = generator(he).float()
        if shown:
            rows.append((he, real, generated))
        if mine:
            sums = {name: sums[name] + value for name, value in measures_of(generated, real).items()}
    means = averaged(sums, world.device)
    pairs = means.pop("pairs")
    return {name: value / pairs for name, value in means.items()}, rows


def measures_of(generated: Tensor, real: Tensor) -> Measures:
    """Of one pair: L1 on [-1, 1], its mean over full size and three octaves, PSNR in dB, and two of the stain.

    Natural DAB densities: ``dab_error`` is the difference of the darkest tenths' means, without sign; ``dab_bias`` the
    mean of the generated image minus that of the real one.
    """
    octaves = float(losses.pyramid_l1(generated, real, (1.0, 1.0, 1.0)))
    l1 = float(losses.l1(generated, real))
    psnr = float(10 * torch.log10(4 / F.mse_loss(generated, real).clamp_min(1e-10)))
    made, true = (losses.dab_density(images.float()).clamp_min(0).flatten() for images in (generated, real))
    darkest = [density.topk(max(1, density.numel() // 10)).values.mean() for density in (made, true)]
    stain = {"dab_error": float((darkest[0] - darkest[1]).abs()), "dab_bias": float(made.mean() - true.mean())}
    return {"l1": l1, "pyramid": (l1 + octaves) / 4, "psnr": psnr, "pairs": 1.0} | stain
