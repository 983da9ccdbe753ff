"""Losses against plain restatements, numerical gradients, and the counts of the published networks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_ihc.measures import dyes
from wsi_ihc.training import losses
from wsi_ihc.training.config import DiscriminatorSettings, LossSettings
from wsi_ihc.training.discriminator import PatchDiscriminator
from wsi_ihc.training.objective import Step, Term, describe, gradient_shares, objective_of, weighted


def images(seed: int, n: int = 3, height: int = 6, width: int = 5, *, grad: bool = False) -> torch.Tensor:
    drawn = torch.rand((n, 3, height, width), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (drawn * 2 - 1).requires_grad_(grad)


def plain_octave(image: np.ndarray) -> np.ndarray:
    """One octave as the words say: four 3x3 Gaussian blurs, reflected borders, then every second row and column."""
    taps = np.exp(-(np.arange(-1, 2) ** 2) / 2)
    kernel = np.outer(taps, taps) / taps.sum() ** 2
    for _ in range(4):
        padded = np.pad(image, 1, mode="reflect")
        blurred = np.zeros_like(image)
        for row in range(3):
            for column in range(3):
                blurred += kernel[row, column] * padded[row : row + image.shape[0], column : column + image.shape[1]]
        image = blurred
    return image[::2, ::2]


@given(height=st.integers(2, 17), width=st.integers(2, 17), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_octave_is_four_blurs_and_a_subsampling(height: int, width: int, seed: int) -> None:
    batch = images(seed, 1, height, width)
    expected = np.stack([plain_octave(channel) for channel in batch[0].numpy()])
    seen = losses.octave(batch)[0].numpy()
    assert seen.shape == (3, (height + 1) // 2, (width + 1) // 2)
    np.testing.assert_allclose(seen, expected, atol=1e-12)


@given(weights=st.lists(st.floats(0, 50), max_size=4), side=st.integers(16, 33))
@settings(deadline=None, max_examples=20)
def test_pyramid_loss_sums_the_octaves(weights: list[float], side: int) -> None:
    generated, target = images(1, 2, side, side), images(2, 2, side, side)
    levels = [generated.numpy(), target.numpy()]
    expected = 0.0
    for weight in weights:
        levels = [np.stack([[plain_octave(c) for c in image] for image in level]) for level in levels]
        expected += weight * np.abs(levels[0] - levels[1]).mean()
    assert float(losses.pyramid_l1(generated, target, weights)) == pytest.approx(expected, abs=1e-9)


@given(n=st.integers(2, 6), height=st.integers(1, 7), width=st.integers(1, 7), biased=st.booleans())
@settings(deadline=None, max_examples=40)
def test_variance_loss_is_the_formula(n: int, height: int, width: int, biased: bool) -> None:
    generated, target = images(3, n, height, width), images(4, n, height, width)
    ddof = 0 if biased else 1
    expected = np.abs(target.numpy().var(axis=0, ddof=ddof) - generated.numpy().var(axis=0, ddof=ddof)).mean()
    seen = losses.variance(generated, target, estimator="biased" if biased else "unbiased")
    assert float(seen) == pytest.approx(expected, abs=1e-12)


def test_variance_of_one_image_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two"):
        losses.variance(images(1, 1), images(2, 1))


def test_dab_density_is_what_beer_and_lambert_say() -> None:
    amount = 0.8
    light = 256 * np.exp(-amount * np.array(dyes.DAB)) - 1
    painted = torch.from_numpy(light / 127.5 - 1)[None, :, None, None].expand(1, 3, 4, 4)
    assert losses.dab_density(painted).shape == (1, 1, 4, 4)
    torch.testing.assert_close(losses.dab_density(painted), torch.full((1, 1, 4, 4), amount, dtype=torch.float64))


def test_pooled_dab_asks_how_much_and_not_where() -> None:
    target = torch.ones((1, 3, 16, 16), dtype=torch.float64)
    target[..., :8] = 0.2
    moved = target.flip(-1)
    assert float(losses.l1(moved, target)) > 0.5
    assert float(losses.pooled_dab(moved, target, 16)) == pytest.approx(0, abs=1e-12)
    assert float(losses.pooled_dab(moved, target, 8)) > 0.1
    assert losses.pooled_dab(images(1, height=16, width=16, grad=True), target.expand(3, -1, -1, -1), 8).requires_grad


def test_one_picture_for_all_pays_the_whole_variance() -> None:
    target = images(5, 4)
    same = images(6, 1).expand(4, -1, -1, -1)
    assert float(losses.variance(same, target)) == pytest.approx(float(target.var(dim=0).mean()))
    assert float(losses.variance(target, target)) == 0


@pytest.mark.parametrize("kind", ["bce", "lsgan"])
@pytest.mark.parametrize("real", [True, False])
def test_adversarial_loss_is_least_where_the_discriminator_is_right(kind: losses.Adversarial, real: bool) -> None:
    right, wrong = (torch.full((2, 1, 3, 3), value if real else 1 - value) for value in (1.0, 0.0))
    assert losses.adversarial(right, real=real, kind=kind) < losses.adversarial(wrong, real=real, kind=kind)
    logits = torch.zeros(2, 1, 3, 3)
    undecided = {"bce": np.log(2), "lsgan": float(real)}[kind]
    assert float(losses.adversarial(logits, real=real, kind=kind)) == pytest.approx(undecided)


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(lambda g, y: losses.l1(g, y), id="l1"),
        pytest.param(lambda g, y: losses.pyramid_l1(g, y, (25.0, 5.0)), id="pyramid"),
        pytest.param(lambda g, y: losses.variance(g, y), id="variance"),
        pytest.param(lambda g, y: losses.variance(g, y, estimator="biased"), id="biased variance"),
        pytest.param(lambda g, _: losses.adversarial(3 * g, real=True, kind="bce"), id="bce"),
        pytest.param(lambda g, _: losses.adversarial(3 * g, real=False, kind="lsgan"), id="lsgan"),
    ],
)
def test_gradients_are_the_numerical_ones(loss) -> None:  # type: ignore[no-untyped-def]
    generated, target = images(7, grad=True), images(8)
    assert torch.autograd.gradcheck(lambda g: loss(g, target), (generated,), eps=1e-6, atol=1e-6)


_RANKS = """
import sys, torch, torch.distributed as dist
from wsi_ihc.measures import dyes
from wsi_ihc.training import losses
dist.init_process_group("gloo")
rank = dist.get_rank()
whole = torch.rand((4, 3, 5, 5), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
target = torch.rand((4, 3, 5, 5), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
mine = whole[2 * rank : 2 * rank + 2].clone().requires_grad_()
loss = losses.variance(mine, target[2 * rank : 2 * rank + 2], over_ranks=True)
loss.backward()
alone = whole.clone().requires_grad_()
expected = losses.variance(alone, target)
expected.backward()
assert torch.equal(loss, expected)
# Every process owns the loss; averaging gradients over processes afterwards divides by their number again.
assert torch.allclose(mine.grad / 2, alone.grad[2 * rank : 2 * rank + 2], atol=1e-12), (mine.grad, alone.grad)
dist.destroy_process_group()
"""


def test_variance_over_two_processes_is_that_of_the_joined_batch(tmp_path: Path) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(_RANKS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script)], env=os.environ | shared | {"RANK": str(rank)}, stderr=subprocess.PIPE
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()


def a_step(seed: int = 9, n: int = 2) -> Step:
    generated, target = images(seed, n, 16, 16, grad=True), images(seed + 1, n, 16, 16)
    return Step(images(seed + 2, n, 16, 16), target, generated, images(seed + 3, n, 2, 2)[:, :1])


def test_the_objective_has_the_terms_that_have_weights() -> None:
    pix2pix = objective_of(LossSettings(l1_weight=100, octave_weights=()))
    assert [term.name for term in pix2pix] == ["adversarial", "l1"]
    assert describe(pix2pix) == "1 bce + 100 L1"
    everything = objective_of(LossSettings(variance_weight=10, octave_weights=(25.0,), dab_weight=2))
    step = a_step()
    values = weighted(everything, step)
    assert list(values) == ["adversarial", "l1", "pyramid", "dab", "variance"]
    assert values["l1"].item() == pytest.approx(25 * (step.generated - step.real).abs().mean().item(), rel=1e-6)
    assert describe(everything) == "1 bce + 25 L1 + pyramid (25) + 2 DAB over 16 px + 10 variance"
    pooled = objective_of(LossSettings(variance_weight=10, variance_pool_px=8))
    assert pooled[-1].says == "10 variance over 8 px"


def edges(step: Step) -> torch.Tensor:
    """A toy loss: differences of neighbouring columns."""
    return (step.generated.diff(dim=-1) - step.real.diff(dim=-1)).abs().mean()


def test_a_loss_from_outside_is_one_function_and_one_term() -> None:
    terms = (*objective_of(LossSettings()), Term("edges", 3.0, edges, "3 edges"))
    step = a_step()
    values = weighted(terms, step)
    assert values["edges"].item() == pytest.approx(3 * edges(step).item())
    assert 0 < gradient_shares(values, step.generated)["edges"] < 1
    assert describe(terms).endswith(" + 3 edges")


# The variance penalty


@given(n=st.integers(2, 5), pool=st.integers(2, 5), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_pooled_variance_averages_squares_before_the_absolute_value(n: int, pool: int, seed: int) -> None:
    generated, target = images(seed, n, 11, 13), images(seed + 1, n, 11, 13)
    difference = target.numpy().var(axis=0, ddof=1) - generated.numpy().var(axis=0, ddof=1)
    rows, columns = 11 // pool, 13 // pool
    squares = difference[:, : rows * pool, : columns * pool].reshape(3, rows, pool, columns, pool)
    expected = np.abs(squares.mean(axis=(2, 4))).mean()
    assert float(losses.variance(generated, target, pool_px=pool)) == pytest.approx(expected, abs=1e-12)


def test_a_square_of_one_pixel_is_the_published_penalty_bit_for_bit() -> None:
    generated, target = images(1, 4).float(), images(2, 4).float()
    assert torch.equal(losses.variance(generated, target, pool_px=1), losses.variance(generated, target))
    with pytest.raises(ValueError, match="no square of 9 px"):
        losses.variance(generated, target, pool_px=9)


def test_the_pooled_penalty_punishes_hedging_in_batches_in_which_the_published_one_rewards_it() -> None:
    """Brown with chance p at every pixel, and nothing says where: all brown nowhere, or the right amount of it?"""
    random = torch.Generator().manual_seed(0)
    shape = (400, 4, 1, 16, 16)  # batches of four
    real, lively = ((torch.rand(shape, generator=random) < 0.1).double() for _ in range(2))
    hedging = torch.zeros(shape, dtype=torch.float64)

    def mean_penalty(generated: torch.Tensor, pool_px: int) -> float:
        batches = zip(generated, real, strict=True)
        return float(np.mean([float(losses.variance(g, y, pool_px=pool_px)) for g, y in batches]))

    assert mean_penalty(hedging, 1) < 0.8 * mean_penalty(lively, 1)
    assert mean_penalty(lively, 16) < 0.5 * mean_penalty(hedging, 16)


@pytest.mark.parametrize("n", [3, 4, 8, 16, 40])
def test_the_rarest_stain_that_the_published_penalty_asks_for(n: int) -> None:
    share = losses.least_share_rewarded(n)
    assert share**n + (1 - share) ** n == pytest.approx(0.5)
    assert 0 < share < 0.5
    assert losses.least_share_rewarded(2) == 1


def test_shares_follow_the_weights_and_sum_to_one() -> None:
    generated, target = images(11, 2, 16, 16, grad=True), images(12, 2, 16, 16)
    terms = {"l1": losses.l1(generated, target), "twice": 2 * losses.l1(generated, target)}
    shares = gradient_shares(terms, generated)
    assert shares["twice"] == pytest.approx(2 / 3)
    assert sum(shares.values()) == pytest.approx(1)
    sum(terms.values()).backward()  # type: ignore[union-attr]


def test_the_discriminator_is_the_published_one() -> None:
    network = PatchDiscriminator(DiscriminatorSettings())
    assert sum(parameter.numel() for parameter in network.parameters()) == 2_768_705
    he, ihc = torch.zeros(1, 3, 256, 256), torch.zeros(1, 3, 256, 256)
    assert network.eval()(he, ihc).shape == (1, 1, 30, 30)


def test_a_logit_sees_seventy_pixels() -> None:
    network = PatchDiscriminator(DiscriminatorSettings(base_channels=4, norm="none"))
    he, ihc = torch.zeros(1, 3, 128, 128), torch.zeros(1, 3, 128, 128, requires_grad=True)
    logits = network(he, ihc)
    logits[0, 0, 7, 7].backward()
    assert ihc.grad is not None
    touched = ihc.grad.abs().sum(dim=(0, 1)).nonzero()
    assert (touched.max(dim=0).values - touched.min(dim=0).values + 1).tolist() == [70, 70]
