"""The training loop: the discriminator first, then the generator, then their average.

One recipe for pix2pix, pyramid pix2pix and the variance-penalised GAN; they differ in the weights of their losses only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import isfinite

import torch
from torch import Tensor, nn

from wsi_ihc.errors import TrainingError
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
from wsi_ihc.training.data import Batch, TrainingData
from wsi_ihc.training.distributed import World, average_gradients, averaged
from wsi_ihc.training.export import save_average
from wsi_ihc.training.monitoring import Averages, CollapseWatch, Logbook, Measures, accuracy, image_strip, spread_ratio
from wsi_ihc.training.objective import Step, Term, gradient_shares, objective_of, weighted
from wsi_ihc.training.randomness import seed_of
from wsi_ihc.training.run_folder import RunFolder
from wsi_ihc.training.schedule import learning_rate_factor, total_steps
from wsi_ihc.training.sources import Source
from wsi_ihc.training.state import TrainingState
from wsi_ihc.training.validation import validate

Log = dict[str, Tensor | float]


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step has to tell; ``measures`` and ``validation`` are empty at most steps."""

    step: int
    steps: int
    measures: Measures = field(default_factory=dict)
    validation: Measures = field(default_factory=dict)
    warnings: Sequence[str] = ()


class Trainer:
    """One training, from its first step or from its last checkpoint, in one process of ``world``."""

    def __init__(
        self,
        settings: TrainingSettings,
        sources: Sequence[Source],
        run: RunFolder,
        world: World,
        terms: Sequence[Term] | None = None,
    ) -> None:
        """``terms`` is the generator's objective; by default what the settings weigh."""
        self.settings, self.world, self.run = settings, world, run
        self.terms = objective_of(settings.losses) if terms is None else tuple(terms)
        self.data = TrainingData(settings, sources, rank=world.rank, ranks=world.ranks)
        self.validation = self.data.validation()
        self.steps = total_steps(settings, self.data.schedule.steps_per_epoch)
        self.compute = Compute.on(world.device, settings.compute)
        self.state = TrainingState(settings, world.device, scale_gradients=self.compute.scales_gradients)
        self.kept_step = 0
        """Of the last checkpoint: where a run that is stopped now goes on."""
        self._adversarial = settings.losses.adversarial_weight > 0
        self._generate = self.compute.forward_of(self.state.generator)
        self._judge = self.compute.forward_of(self.state.discriminator)

    def resume(self) -> None:
        """Go on from the last checkpoint, where there is one."""
        if self.run.checkpoint.is_file():
            self.state.load(self.run.checkpoint, self.world.device)
            self.kept_step = self.state.step

    def take_steps(self) -> Iterator[StepReport]:
        """Take all remaining steps, one at a time, reporting each.

        Raises:
            TrainingError: when a loss is no longer a number; the last checkpoint is from before that.
        """
        every, state, averages, collapse = self.settings.run, self.state, Averages(), CollapseWatch()
        with ExitStack() as files:
            logbook = files.enter_context(Logbook(self.run, state.step)) if self.world.leads else None
            started, waited = time.perf_counter(), self.data.waited_s
            since = state.step

            for batch in self.data.batches(state.step, self.steps):
                # Take the step.
                averages.add(self._step(batch))
                step, last = state.step, state.step == self.steps
                save = last or step % every.checkpoint_every == 0
                measures, validation, warnings = Measures(), Measures(), list[str]()

                # Say how it goes.
                if save or step % every.log_every == 0:
                    measures = averaged(averages.take(), self.world.device)
                    self._refuse_nonsense(measures)
                    warnings = collapse.warnings(measures)
                    elapsed = time.perf_counter() - started
                    measures["time/steps_per_s"] = (step - since) / elapsed
                    measures["time/waiting_share"] = (self.data.waited_s - waited) / elapsed
                    started, waited, since = time.perf_counter(), self.data.waited_s, step

                # Validate the average, and keep the best.
                if last or step % every.validate_every == 0:
                    validation = self._validate(logbook)

                # Write it down.
                if logbook and (measures or validation):
                    logbook.write(step, measures | {f"validation/{k}": v for k, v in validation.items()})
                if save:
                    self._save()
                yield StepReport(step, self.steps, measures, validation, warnings)

    def _step(self, batch: Batch) -> Log:
        """One step of both networks on one batch; returns what to log."""
        state = self.state
        torch.manual_seed(self._seed())
        state.set_learning_rate(learning_rate_factor(state.step, self.steps, self._constant_steps()), self.settings)
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
        for part in zip(he.split(size), real.split(size), generated.split(size), strict=True):
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

    def _validate(self, logbook: Logbook | None) -> Measures:
        """Measures of the averaged generator on the held-out pairs; exports it when it is the best so far."""
        if not self.validation:
            return {}
        every = self.settings.run
        means, rows = validate(self.state.average, self.validation, self.world, self.compute, every.strips)
        if means[every.best_by] < self.state.best.get(every.best_by, float("inf")):
            self.state.best = {**means, "step": float(self.state.step)}
            self._export()
        if logbook and rows:
            logbook.show(self.state.step, image_strip(rows))
        return means

    def _save(self) -> None:
        if not self.state.is_finite():
            raise self._diverged("a weight")
        if not self.world.leads:
            return
        self.state.save(self.run.checkpoint)
        self.kept_step = self.state.step
        if not self.validation:
            self._export()

    def _export(self) -> None:
        if self.world.leads:
            save_average(self.run, self.settings, self.state.average, self.state.step)

    def _refuse_nonsense(self, measures: Measures) -> None:
        for name, value in measures.items():
            # With float16 a gradient that overflows is found and skipped by the scaler; the losses must stay numbers.
            if not isfinite(value) and not (name.startswith("gradient_norm") and self.compute.scales_gradients):
                raise self._diverged(name)

    def _diverged(self, what: str) -> TrainingError:
        kept = (
            f"the last good checkpoint is {self.run.checkpoint}" if self.run.checkpoint.is_file() else "none was saved"
        )
        return TrainingError(
            f"step {self.state.step}: {what} is no longer a number; {kept}; go on with --resume --precision float32, "
            "or start again with --set optimiser.clip_norm=1"
        )

    def _constant_steps(self) -> int:
        return total_steps(self.settings, self.data.schedule.steps_per_epoch, decay=False)


def _logged(values: Mapping[str, Tensor], norm: Tensor) -> Log:
    """The generator's lines of the log: each weighted term, their sum, the length of the gradient."""
    total = torch.stack(list(values.values())).sum()
    return {f"loss/{name}": value for name, value in values.items()} | {
        "loss/total": total,
        "gradient_norm/generator": norm,
    }


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """The network's parameters take no gradient."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
