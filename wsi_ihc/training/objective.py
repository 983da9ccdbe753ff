"""The generator's objective: a tuple of terms, and how hard each of them pulls.

``L_G = w_adv L_adv + w_1 L1 + sum_i w_i L1(octave i) + w_dab L_dab + w_var L_var`` (arXiv 2506.18371). Without the last
two it is pyramid pix2pix, without octaves pix2pix.

A new loss is one function in ``losses.py`` and one ``Term`` here. The training, the log, the shares of the gradient,
the dry run and the model card all read the tuple of terms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wsi_ihc.training import losses
from wsi_ihc.training.config import LossSettings


@dataclass(frozen=True, slots=True)
class Step:
    """What a loss may look at: the images of one step, ``(n, 3, h, w)`` float in [-1, 1], and the answers to them.

    ``logits`` are the discriminator's answers to ``generated``, ``(n, 1, h', w')``; a single 0 where none trains.
    """

    he: Tensor
    real: Tensor
    generated: Tensor
    logits: Tensor


@dataclass(frozen=True, slots=True)
class Term:
    """One term of the objective: ``weight * loss(step)``."""

    name: str
    """In the log: ``loss/NAME`` and ``share/NAME``."""
    weight: float
    loss: Callable[[Step], Tensor]
    """A mean over the images of the step, as a scalar."""
    says: str
    """The term in the objective's one line, weight included, for example ``25 L1``."""

    def of(self, step: Step) -> Tensor:
        """The weighted value."""
        return self.weight * self.loss(step)


def objective_of(settings: LossSettings) -> tuple[Term, ...]:
    """The terms whose weight is not 0, in the order of the log."""
    return tuple(_terms(settings))


def _terms(settings: LossSettings) -> Iterator[Term]:
    if weight := settings.adversarial_weight:
        yield Term(
            "adversarial",
            weight,
            lambda step: losses.adversarial(step.logits, real=True, kind=settings.adversarial),
            f"{weight:g} {settings.adversarial}",
        )
    if weight := settings.l1_weight:
        yield Term("l1", weight, lambda step: losses.l1(step.generated, step.real), f"{weight:g} L1")
    if any(settings.octave_weights):
        yield Term(
            "pyramid",
            1.0,
            lambda step: losses.pyramid_l1(step.generated, step.real, settings.octave_weights),
            f"pyramid ({', '.join(f'{weight:g}' for weight in settings.octave_weights)})",
        )
    if weight := settings.dab_weight:
        yield Term(
            "dab",
            weight,
            lambda step: losses.pooled_dab(step.generated, step.real, settings.dab_pool_px),
            f"{weight:g} DAB over {settings.dab_pool_px} px",
        )
    if weight := settings.variance_weight:
        pool = settings.variance_pool_px
        yield Term(
            "variance",
            weight,
            lambda step: losses.variance(
                step.generated,
                step.real,
                estimator=settings.variance_estimator,
                over_ranks=settings.variance_over == "ranks",
                pool_px=pool,
            ),
            f"{weight:g} variance" + (f" over {pool} px" if pool > 1 else ""),
        )


def describe(terms: Sequence[Term]) -> str:
    """The objective in one line, for example ``1 bce + 25 L1 + pyramid (25, 25, 25) + 10 variance``."""
    return " + ".join(term.says for term in terms)


def weighted(terms: Sequence[Term], step: Step) -> dict[str, Tensor]:
    """Each weighted term by name. Images and logits are taken to float32 where they are shorter."""
    images = (step.he, step.real, step.generated, step.logits)
    full = Step(*(image if image.dtype == torch.float64 else image.float() for image in images))
    return {term.name: term.of(full) for term in terms}


def gradient_shares(terms: Mapping[str, Tensor], generated: Tensor) -> dict[str, float]:
    """The share of each term in the pull on the generated image: ``|dL_t/dg| / sum_t |dL_t/dg|``, Euclidean norms.

    Values of losses cannot be compared (25 L1 is about 3, the variance term 0.03), these can: they are what reaches
    the generator's last layer. The graphs are kept for the backward pass that follows.
    """
    # The gradient of a mean is one over the pixels: too small for float16, so the sum is taken instead.
    pixels = generated.numel()
    return shares_of({name: _pull(pixels * term, generated) for name, term in terms.items()})


def _pull(term: Tensor, generated: Tensor) -> Tensor:
    """The gradient on the image; zero where the term does not look at it."""
    if not term.requires_grad:
        return torch.zeros_like(generated)
    (gradient,) = torch.autograd.grad(term, generated, retain_graph=True, allow_unused=True)
    return torch.zeros_like(generated) if gradient is None else gradient


def shares_of(pulls: Mapping[str, Tensor]) -> dict[str, float]:
    """Each gradient's share of the sum of their Euclidean norms."""
    norms = {name: float(pull.float().norm()) for name, pull in pulls.items()}
    total = sum(norms.values())
    return {name: norm / total if total else 0.0 for name, norm in norms.items()}
