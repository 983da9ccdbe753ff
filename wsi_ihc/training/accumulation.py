"""The gradient of a batch that is larger than memory allows, exact for every objective.

Most losses are means over images, so parts of a batch could be taken one after the other and their gradients added. The
variance penalty is not: it compares the images of the whole batch. The chain rule splits at the generated images ``g``
and the discriminator's logits ``d``, which are small beside the networks' activations:

    dL/dtheta = sum over parts of (dL/dg_part + dL/dd_part * dd_part/dg_part) * dg_part/dtheta

1. Every part is generated and judged without a graph; only images and logits are kept.
2. The objective of the whole batch gives ``dL/dg`` and ``dL/dd``.
3. Every part is generated and judged again, from the same random numbers, and takes its share of these backward.

It costs one more forward pass. Norm layers see a part at a time, as they see one device's images of a batch that
several devices share: with BatchNorm the gradient is that of the network which normalises part by part. Running
statistics move in the last pass alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wsi_ihc.training.objective import Step, Term, shares_of, weighted

Generate = Callable[[Tensor], Tensor]
Judge = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Parts:
    """How a batch is cut, and which random numbers each part draws (dropout)."""

    size: int
    seed: Callable[[int], int]
    """From a part's number to the seed of its forward pass."""

    def of(self, images: Tensor) -> tuple[Tensor, ...]:
        return torch.split(images, self.size)

    def draw(self, number: int) -> None:
        torch.manual_seed(self.seed(number))


def generate_apart(network: nn.Module, generate: Generate, he: Tensor, parts: Parts) -> Tensor:
    """All generated images, without a graph and without moving running statistics; memory is that of one part."""
    with torch.no_grad(), held_statistics(network):
        return torch.cat([_drawn(generate, part, number, parts) for number, part in enumerate(parts.of(he))])


def _drawn(generate: Generate, he: Tensor, number: int, parts: Parts) -> Tensor:
    parts.draw(number)
    return generate(he)


def judge_apart(judge: Judge, he: Tensor, generated: Tensor, parts: Parts) -> Tensor:
    """The logits of all generated images, without a graph, part by part."""
    with torch.no_grad():
        return torch.cat([judge(*part) for part in zip(parts.of(he), parts.of(generated), strict=True)])


@dataclass(frozen=True, slots=True)
class Pull:
    """The objective of a whole batch at its images and logits, ready to be taken backward part by part."""

    values: dict[str, Tensor]
    """Weighted terms by name, detached."""
    on_images: Tensor
    on_logits: Tensor | None
    each: dict[str, tuple[Tensor, Tensor | None]]
    """The same two of every term alone; empty unless asked for."""


def pull_of(
    terms: Sequence[Term], he: Tensor, real: Tensor, generated: Tensor, logits: Tensor, *, scale: float, each: bool
) -> Pull:
    """``scale`` times the gradient of the sum of ``terms`` on images and logits that need no graph."""
    images, answers = generated.detach().requires_grad_(), logits.detach().requires_grad_()
    values = weighted(terms, Step(he, real, images, answers))

    def gradient(value: Tensor, factor: float) -> tuple[Tensor, Tensor | None]:
        if not value.requires_grad:
            return torch.zeros_like(images), None
        on_images, on_logits = torch.autograd.grad(
            factor * value, (images, answers), retain_graph=True, allow_unused=True
        )
        return torch.zeros_like(images) if on_images is None else on_images, on_logits

    alone = {name: gradient(value, images.numel()) for name, value in values.items()} if each else {}
    total = gradient(torch.stack(list(values.values())).sum(), scale)
    return Pull({name: value.detach() for name, value in values.items()}, *total, alone)


def push_back(pull: Pull, generate: Generate, judge: Judge, he: Tensor, parts: Parts) -> None:
    """Add the gradient of the whole batch to the generator's parameters, part by part."""
    on_logits = _split_or_none(pull.on_logits, parts)
    for number, (part, on_images) in enumerate(zip(parts.of(he), parts.of(pull.on_images), strict=True)):
        generated = _drawn(generate, part, number, parts)
        if on_logits is None:
            torch.autograd.backward([generated], [on_images])
        else:
            torch.autograd.backward([generated, judge(part, generated)], [on_images, on_logits[number]])


def _split_or_none(gradient: Tensor | None, parts: Parts) -> tuple[Tensor, ...] | None:
    return None if gradient is None else parts.of(gradient)


def shares_apart(pull: Pull, judge: Judge, he: Tensor, generated: Tensor, parts: Parts) -> dict[str, float]:
    """The share of each term in the pull on the generated images, through the discriminator where a term uses it."""
    return shares_of({name: _through(judge, he, generated, *gradients, parts) for name, gradients in pull.each.items()})


def _through(
    judge: Judge, he: Tensor, generated: Tensor, on_images: Tensor, on_logits: Tensor | None, parts: Parts
) -> Tensor:
    if on_logits is None:
        return on_images
    pulls = []
    for part, images, gradient in zip(parts.of(he), parts.of(generated), parts.of(on_logits), strict=True):
        leaf = images.detach().requires_grad_()
        (pull,) = torch.autograd.grad(judge(part, leaf), leaf, gradient)
        pulls.append(pull)
    return on_images + torch.cat(pulls)


@contextmanager
def held_statistics(network: nn.Module) -> Iterator[None]:
    """Norm layers normalise as in training, but their running statistics stay as they are."""
    moving = [module for module in network.modules() if getattr(module, "track_running_stats", False)]
    try:
        for module in moving:
            module.track_running_stats = False  # type: ignore[assignment]
        yield
    finally:
        for module in moving:
            module.track_running_stats = True  # type: ignore[assignment]
