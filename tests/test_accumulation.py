"""The gradient of a batch in parts is that of the whole batch, for every loss, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from wsi_ihc.generators import build_network, initialise
from wsi_ihc.generators.networks import Architecture, Norm
from wsi_ihc.training.accumulation import (
    Parts,
    generate_apart,
    held_statistics,
    judge_apart,
    pull_of,
    push_back,
    shares_apart,
)
from wsi_ihc.training.config import DiscriminatorSettings, LossSettings
from wsi_ihc.training.discriminator import PatchDiscriminator
from wsi_ihc.training.objective import Step, Term, gradient_shares, objective_of, weighted

PARTS = Parts(2, lambda number: 100 + number)


def images(seed: int, n: int = 6) -> Tensor:
    drawn = torch.rand((n, 3, 32, 32), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return 2 * drawn - 1


def networks(norm: Norm, *, dropout: bool = False) -> tuple[nn.Module, nn.Module]:
    architecture = Architecture(kind="resnet", blocks=1, base_channels=4, norm=norm, dropout=dropout)
    generator = initialise(build_network(architecture), 1)
    discriminator = initialise(PatchDiscriminator(DiscriminatorSettings(base_channels=4, layers=1, norm=norm)), 2)
    for network in (generator, discriminator):
        for parameter in network.parameters():
            # Weights of 0.02 let next to nothing through; larger ones make a gradient worth comparing.
            parameter.data.mul_(4)
    return generator.double().train(), discriminator.double().train().requires_grad_(False)


def gradients(network: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]


def in_parts(
    terms: Sequence[Term], networks: tuple[nn.Module, nn.Module], he: Tensor, real: Tensor
) -> tuple[dict[str, Tensor], list[Tensor], dict[str, float]]:
    generator, discriminator = networks
    generator.zero_grad(set_to_none=True)
    generated = generate_apart(generator, generator, he, PARTS)
    with held_statistics(discriminator):
        logits = judge_apart(discriminator, he, generated, PARTS)
    pull = pull_of(terms, he, real, generated, logits, scale=1, each=True)
    shares = shares_apart(pull, discriminator, he, generated, PARTS)
    push_back(pull, generator, discriminator, he, PARTS)
    return pull.values, gradients(generator), shares


def whole(
    terms: Sequence[Term],
    networks: tuple[nn.Module, nn.Module],
    he: Tensor,
    real: Tensor,
    forward: Callable[[nn.Module, nn.Module, Tensor], tuple[Tensor, Tensor]],
) -> tuple[dict[str, Tensor], list[Tensor], dict[str, float]]:
    generator, discriminator = networks
    generator.zero_grad(set_to_none=True)
    generated, logits = forward(generator, discriminator, he)
    values = weighted(terms, Step(he, real, generated, logits))
    shares = gradient_shares(values, generated)
    torch.stack(list(values.values())).sum().backward()
    return values, gradients(generator), shares


def at_once(generator: nn.Module, discriminator: nn.Module, he: Tensor) -> tuple[Tensor, Tensor]:
    generated = generator(he)
    return generated, discriminator(he, generated)


def joined(generator: nn.Module, discriminator: nn.Module, he: Tensor) -> tuple[Tensor, Tensor]:
    """One graph over all parts: what the gradient must be where norm layers or dropout see parts."""
    made = []
    for number, part in enumerate(PARTS.of(he)):
        PARTS.draw(number)
        made.append(generator(part))
    generated = torch.cat(made)
    return generated, torch.cat([discriminator(*both) for both in zip(PARTS.of(he), PARTS.of(generated), strict=True)])


EVERY = LossSettings(variance_weight=10, dab_weight=3, octave_weights=(25.0, 5.0))
ALONE = LossSettings(adversarial_weight=0, l1_weight=0, octave_weights=())
ONE = {
    "adversarial": LossSettings(l1_weight=0, octave_weights=()),
    "l1": LossSettings(adversarial_weight=0, octave_weights=()),
    "pyramid": LossSettings(adversarial_weight=0, l1_weight=0, octave_weights=(25.0, 5.0)),
    "variance": LossSettings(adversarial_weight=0, l1_weight=0, octave_weights=(), variance_weight=10),
    "pooled": LossSettings(
        adversarial_weight=0, l1_weight=0, octave_weights=(), variance_weight=10, variance_pool_px=8
    ),
    "every": EVERY,
}


@pytest.mark.parametrize("name", ONE)
def test_parts_give_the_gradient_of_the_whole_batch(name: str) -> None:
    terms, both, he, real = objective_of(ONE[name]), networks("none"), images(1), images(2)
    _same(in_parts(terms, both, he, real), whole(terms, both, he, real, at_once))


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_dropout_and_norm_layers_are_the_same_in_both_passes(norm: Norm) -> None:
    terms, both, he, real = objective_of(EVERY), networks(norm, dropout=True), images(1), images(2)
    _same(in_parts(terms, both, he, real), whole(terms, both, he, real, joined))


def test_running_statistics_move_once() -> None:
    he, real, terms = images(1), images(2), objective_of(EVERY)
    apart, together = networks("batch"), networks("batch")
    in_parts(terms, apart, he, real)
    whole(terms, together, he, real, joined)
    for one, other in zip(apart[0].state_dict().values(), together[0].state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


def test_the_sum_of_the_parts_own_penalties_is_another_gradient() -> None:
    """Plain accumulation would not do: the test above can fail."""
    terms, both, he, real = objective_of(ONE["variance"]), networks("none"), images(1), images(2)
    _, exact, _ = in_parts(terms, both, he, real)
    generator, _ = both
    generator.zero_grad(set_to_none=True)
    for part, target in zip(PARTS.of(he), PARTS.of(real), strict=True):
        generated = generator(part)
        values = weighted(terms, Step(part, target, generated, generated.new_zeros(1)))
        (values["variance"] / 3).backward()
    plain = torch.cat([gradient.flatten() for gradient in gradients(generator)])
    wanted = torch.cat([gradient.flatten() for gradient in exact])
    assert float((plain - wanted).norm() / wanted.norm()) > 0.1


def _same(
    apart: tuple[dict[str, Tensor], list[Tensor], dict[str, float]],
    together: tuple[dict[str, Tensor], list[Tensor], dict[str, float]],
) -> None:
    for name, value in together[0].items():
        torch.testing.assert_close(apart[0][name], value.detach(), atol=1e-12, rtol=1e-12)
    assert apart[2] == pytest.approx(together[2], abs=1e-6)
    assert float(torch.cat([gradient.flatten() for gradient in together[1]]).norm()) > 1e-6
    for one, other in zip(apart[1], together[1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-10)
