"""One step of both networks: the discriminator first, then the generator, then their average."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from wsi_ihc.training import losses
from wsi_ihc.training.accumulation import (
    Parts,
    generate_apart,
    held_statistics,
    judge_apart,
    pull_of,
    push_back,
    shares_apart,
)
from wsi_ihc.training.compute import Compute
from wsi_ihc.training.config import TrainingSettings
from wsi_ihc.training.data import Batch
from wsi_ihc.training.distributed import World, average_gradients
from wsi_ihc.training.monitoring import accuracy, spread_ratio
from wsi_ihc.training.objective import Step, Term, gradient_shares, weighted
from wsi_ihc.training.randomness import seed_of
from wsi_ihc.training.state import TrainingState

Log = dict[str, Tensor | float]
"""What a step logs, by name; tensors stay on their device."""


class Descent:
    """Takes steps on the state of a training, in one process of ``world``."""

    def __init__(
        self,
        settings: TrainingSettings,
        state: TrainingState,
        compute: Compute,
        world: World,
        terms: Sequence[Term],
        rate_factor: Callable[[int], float],
    ) -> None:
        """``rate_factor`` maps a step to the share of the full learning rates."""
        self.settings, self.state, self.compute, self.world = settings, state, compute, world
        self.terms = tuple(terms)
        self._rate_factor = rate_factor
        self._adversarial = settings.losses.adversarial_weight > 0
        self._generate = compute.forward_of(state.generator)
        self._judge = compute.forward_of(state.discriminator)

    def step(self, batch: Batch) -> Log:
        """One step of both networks on one batch; returns what to log."""
        state = self.state
        torch.manual_seed(self._seed())
        state.set_learning_rate(self._rate_factor(state.step), self.settings)
        he, real = self.compute.send(batch.he), self.compute.send(batch.ihc)
        take = self._take_whole if len(he) <= self.settings.data.batch_size else self._take_in_parts
        generated, log = take(he, real)
        state.update_average(self.settings.optimiser.ema_decay)
        state.step += 1
        if len(real) > 1:
            log["spread_ratio"] = spread_ratio(real, generated)
        log["learning_rate"] = state.generator_optimiser.param_groups[0]["lr"]
        return log

    def _take_whole(self, he: Tensor, real: Tensor) -> tuple[Tensor, Log]:
        """A step on a batch that fits: the generated images, and what to log."""
        settings, state = self.settings, self.state
        with self.compute.autocast():
            generated = self._generate(he)

        # Discriminator: real is real, generated is not; half the pace of the generator.
        log: Log = self._step_discriminator(he, real, generated.detach()) if self._adversarial else {}

        # Generator: every term of the objective, and now and then how hard each pulls.
        with frozen(state.discriminator):
            with self.compute.autocast():
                logits = self._judge(he, generated) if self._adversarial else generated.new_zeros(1)
            values = weighted(self.terms, Step(he, real, generated, logits))
            if state.step % settings.run.share_every == 0:
                log |= {f"share/{name}": share for name, share in gradient_shares(values, generated).items()}
            total = torch.stack(list(values.values())).sum()
            state.generator_optimiser.zero_grad(set_to_none=True)
            state.generator_scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        norm = self._descend(state.generator, state.generator_optimiser, state.generator_scaler)
        return generated, log | _logged(values, norm)

    def _take_in_parts(self, he: Tensor, real: Tensor) -> tuple[Tensor, Log]:
        """The same on a batch larger than ``batch_size``, with the gradient of the whole (``accumulation``)."""
        state, scaler = self.state, self.state.generator_scaler
        parts = Parts(self.settings.data.batch_size, self._seed)
        generate, judge = self._with_autocast(self._generate), self._with_autocast(self._judge)
        generated = generate_apart(state.generator, generate, he, parts)
        log: Log = self._step_discriminator(he, real, generated) if self._adversarial else {}

        with frozen(state.discriminator):
            logits = generated.new_zeros(1)
            if self._adversarial:
                with held_statistics(state.discriminator):
                    logits = judge_apart(judge, he, generated, parts)
            share = state.step % self.settings.run.share_every == 0
            scale = float(scaler.scale(torch.ones((), device=he.device)))
            pull = pull_of(self.terms, he, real, generated, logits, scale=scale, each=share)
            if share:
                with held_statistics(state.discriminator):
                    shares = shares_apart(pull, judge, he, generated, parts)
                log |= {f"share/{name}": value for name, value in shares.items()}
            state.generator_optimiser.zero_grad(set_to_none=True)
            push_back(pull, generate, judge, he, parts)
        norm = self._descend(state.generator, state.generator_optimiser, scaler)
        return generated, log | _logged(pull.values, norm)

    def _step_discriminator(self, he: Tensor, real: Tensor, generated: Tensor) -> Log:
        """One step towards calling ``real`` real and ``generated`` not; returns what to log.

        Its loss is a mean over images, so parts of a batch add up to the whole.
        """
        state, kind = self.state, self.settings.losses.adversarial
        undecided = 0.5 if kind == "lsgan" else 0.0
        size = self.settings.data.batch_size
        wrong, right = torch.zeros((), device=he.device), torch.zeros((), device=he.device)
        state.discriminator_optimiser.zero_grad(set_to_none=True)
        for part in zip(*(torch.split(images, size) for images in (he, real, generated)), strict=True):
            share = len(part[0]) / len(he)
            with self.compute.autocast():
                logits = self._judge(part[0], part[1]), self._judge(part[0], part[2])
            real_logits, fake_logits = (answer.float() for answer in logits)
            loss = losses.adversarial(real_logits, real=True, kind=kind) + losses.adversarial(
                fake_logits, real=False, kind=kind
            )
            scaled = state.discriminator_scaler.scale(0.5 * share * loss)
            scaled.backward()  # type: ignore[no-untyped-call]
            wrong = wrong + 0.5 * share * loss.detach()
            right = right + share * accuracy(real_logits, fake_logits, undecided=undecided)
        norm = self._descend(state.discriminator, state.discriminator_optimiser, state.discriminator_scaler)
        return {"loss/discriminator": wrong, "gradient_norm/discriminator": norm, "discriminator_accuracy": right}

    def _with_autocast(self, network: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def forward(*images: Tensor) -> Tensor:
            with self.compute.autocast():
                return network(*images)

        return forward

    def _seed(self, part: int = 0) -> int:
        """Of everything random in a step, or in a part of it: it follows from the step, so a resumed run repeats it."""
        place = self.state.step * self.world.ranks + self.world.rank
        return seed_of(self.settings.run.seed, place, part)

    def _descend(self, network: nn.Module, optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> Tensor:
        """Average over processes, clip, step. Returns the length of the gradient before clipping."""
        average_gradients(network)
        scaler.unscale_(optimiser)
        limit = self.settings.optimiser.clip_norm or float("inf")
        norm = nn.utils.clip_grad_norm_(network.parameters(), limit)
        scaler.step(optimiser)
        scaler.update()
        return norm


def _logged(values: Mapping[str, Tensor], norm: Tensor) -> Log:
    """The generator's lines of the log: each weighted term, their sum, the length of the gradient."""
    log: Log = {f"loss/{name}": value for name, value in values.items()}
    return log | {"loss/total": torch.stack(list(values.values())).sum(), "gradient_norm/generator": norm}


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """The network's parameters take no gradient."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
