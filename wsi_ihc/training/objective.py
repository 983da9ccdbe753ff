"""The generator's objective: which losses, with which weights, and who pulls how hard.

``L_G = w_adv L_adv + w_1 L1 + sum_i w_i L1(octave i) + w_var L_var`` (arXiv 2506.18371). With ``w_var = 0`` it is
pyramid pix2pix, with no octaves either it is pix2pix.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from wsi_ihc.training import losses
from wsi_ihc.training.config import LossSettings


def generator_terms(settings: LossSettings, generated: Tensor, target: Tensor, logits: Tensor) -> dict[str, Tensor]:
    """Each weighted term of ``L_G``, in float32, absent where its weight is 0.

    Their names are ``adversarial, l1, pyramid, dab, variance``. ``logits`` is the discriminator's answer to
    ``generated``.
    """
    generated, target = generated.float(), target.float()
    terms: dict[str, Tensor] = {}
    if settings.adversarial_weight:
        doubt = losses.adversarial(logits.float(), real=True, kind=settings.adversarial)
        terms["adversarial"] = settings.adversarial_weight * doubt
    if settings.l1_weight:
        terms["l1"] = settings.l1_weight * losses.l1(generated, target)
    if any(settings.octave_weights):
        terms["pyramid"] = losses.pyramid_l1(generated, target, settings.octave_weights)
    if settings.dab_weight:
        terms["dab"] = settings.dab_weight * losses.pooled_dab(generated, target, settings.dab_pool_px)
    if settings.variance_weight:
        penalty = losses.variance(
            generated, target, estimator=settings.variance_estimator, over_ranks=settings.variance_over == "ranks"
        )
        terms["variance"] = settings.variance_weight * penalty
    return terms


def gradient_shares(terms: Mapping[str, Tensor], generated: Tensor) -> dict[str, float]:
    """Of the pull on the generated image, the share of each term: ``|dL_t/dg| / sum_t |dL_t/dg|``, Euclidean norms.

    Values of losses cannot be compared (25 L1 is about 3, the variance term 0.03), these can: they are what reaches
    the generator's last layer. The graphs are kept for the backward pass that follows.
    """
    norms = {}
    # The gradient of a mean is one over the pixels: too small for float16, so the sum is taken instead.
    pixels = generated.numel()
    for name, term in terms.items():
        (gradient,) = torch.autograd.grad(pixels * term, generated, retain_graph=True)
        norms[name] = float(gradient.float().norm())
    total = sum(norms.values())
    return {name: norm / total if total else 0.0 for name, norm in norms.items()}
