"""The training loop: the discriminator first, then the generator, then their average.

One recipe for pix2pix, pyramid pix2pix and the variance-penalised GAN; they differ in the weights of their losses only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import isfinite

import torch
from torch import Tensor, nn

from wsi_ihc.errors import TrainingError
from wsi_ihc.training import losses
from wsi_ihc.training.compute import Compute
from wsi_ihc.training.config import TrainingSettings
from wsi_ihc.training.data import Batch, TrainingData
from wsi_ihc.training.distributed import World, average_gradients, averaged
from wsi_ihc.training.export import save_average
from wsi_ihc.training.monitoring import Averages, CollapseWatch, Logbook, Measures, accuracy, image_strip, spread_ratio
from wsi_ihc.training.objective import generator_terms, gradient_shares
from wsi_ihc.training.run_folder import RunFolder
from wsi_ihc.training.schedule import learning_rate_factor, total_steps
from wsi_ihc.training.sources import Source
from wsi_ihc.training.state import TrainingState
from wsi_ihc.training.validation import validate


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

    def __init__(self, settings: TrainingSettings, sources: Sequence[Source], run: RunFolder, world: World) -> None:
        self.settings, self.world, self.run = settings, world, run
        self.data = TrainingData(settings, sources, rank=world.rank, ranks=world.ranks)
        self.validation = self.data.validation()
        self.steps = total_steps(settings, self.data.schedule.steps_per_epoch)
        self.compute = Compute.on(world.device, settings.compute)
        self.state = TrainingState(settings, world.device, scale_gradients=self.compute.scales_gradients)
        self.kept_step = 0
        """Of the last checkpoint: where a run that is stopped now goes on."""
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

    def _step(self, batch: Batch) -> dict[str, Tensor | float]:
        """One step of both networks on one batch; returns what to log."""
        settings, state = self.settings, self.state

        # Everything random in a step follows from its number, so a resumed run repeats it.
        torch.manual_seed((settings.run.seed << 40) + state.step * self.world.ranks + self.world.rank)
        state.set_learning_rate(learning_rate_factor(state.step, self.steps, self._constant_steps()), settings)

        # Fetch the pairs and generate.
        he, real = self.compute.send(batch.he), self.compute.send(batch.ihc)
        with self.compute.autocast():
            generated = self._generate(he)

        # Discriminator: real is real, generated is not; half the pace of the generator.
        log: dict[str, Tensor | float] = {}
        if settings.losses.adversarial_weight:
            log |= self._step_discriminator(he, real, generated.detach())

        # Generator: every term of the objective, and now and then who pulls how hard.
        state.discriminator.requires_grad_(False)
        with self.compute.autocast():
            logits = self._judge(he, generated) if settings.losses.adversarial_weight else generated.new_zeros(1)
        terms = generator_terms(settings.losses, generated, real, logits)
        if state.step % settings.run.share_every == 0:
            log |= {f"share/{name}": share for name, share in gradient_shares(terms, generated).items()}
        total = torch.stack(list(terms.values())).sum()
        norm = self._descend(state.generator, state.generator_optimiser, state.generator_scaler, total)
        state.discriminator.requires_grad_(True)

        # Average.
        state.update_average(settings.optimiser.ema_decay)
        state.step += 1
        log |= {f"loss/{name}": term for name, term in terms.items()}
        log |= {"loss/total": total, "gradient_norm/generator": norm}
        if len(real) > 1:
            log["spread_ratio"] = spread_ratio(real, generated)
        log["learning_rate"] = state.generator_optimiser.param_groups[0]["lr"]
        return log

    def _step_discriminator(self, he: Tensor, real: Tensor, generated: Tensor) -> dict[str, Tensor | float]:
        """One step towards calling ``real`` real and ``generated`` not; returns what to log."""
        state, kind = self.state, self.settings.losses.adversarial
        with self.compute.autocast():
            real_logits, fake_logits = self._judge(he, real), self._judge(he, generated)
        real_logits, fake_logits = real_logits.float(), fake_logits.float()
        wrong = losses.adversarial(real_logits, real=True, kind=kind) + losses.adversarial(
            fake_logits, real=False, kind=kind
        )
        norm = self._descend(
            state.discriminator, state.discriminator_optimiser, state.discriminator_scaler, 0.5 * wrong
        )
        right = accuracy(real_logits, fake_logits, undecided=0.5 if kind == "lsgan" else 0.0)
        return {
            "loss/discriminator": 0.5 * wrong,
            "gradient_norm/discriminator": norm,
            "discriminator_accuracy": right,
        }

    def _descend(
        self, network: nn.Module, optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler, loss: Tensor
    ) -> Tensor:
        """Backward, averaging over processes, clipping, step. Returns the length of the gradient before clipping."""
        optimiser.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
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
