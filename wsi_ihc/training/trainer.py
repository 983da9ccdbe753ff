"""The training loop: steps, measures, validation, checkpoints.

One recipe for pix2pix, pyramid pix2pix and the variance-penalised GAN; they differ in the weights of their losses only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import inf, isfinite

from wsi_ihc.errors import TrainingError
from wsi_ihc.training.compute import Compute
from wsi_ihc.training.config import TrainingSettings
from wsi_ihc.training.data import TrainingData
from wsi_ihc.training.descent import Descent
from wsi_ihc.training.distributed import World, averaged
from wsi_ihc.training.export import save_average
from wsi_ihc.training.monitoring import Averages, CollapseWatch, Logbook, Measures, image_strip
from wsi_ihc.training.objective import Term, objective_of
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
        self.data = TrainingData(settings, sources, rank=world.rank, ranks=world.ranks)
        self.validation = self.data.validation()
        self.steps = total_steps(settings, self.data.schedule.steps_per_epoch)
        self.compute = Compute.on(world.device, settings.compute)
        self.state = TrainingState(settings, world.device, scale_gradients=self.compute.scales_gradients)
        self.kept_step = 0
        """Of the last checkpoint: where a run that is stopped now goes on."""
        terms = objective_of(settings.losses) if terms is None else tuple(terms)
        self._descent = Descent(settings, self.state, self.compute, world, terms, self._factor)

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
                averages.add(self._descent.step(batch))
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

                # Validate the average.
                if last or step % every.validate_every == 0:
                    validation = self._validate(logbook)

                # Write it down.
                if logbook and (measures or validation):
                    logbook.write(step, measures | {f"validation/{k}": v for k, v in validation.items()})
                if save:
                    self._save()
                yield StepReport(step, self.steps, measures, validation, warnings)

    def _validate(self, logbook: Logbook | None) -> Measures:
        """Measures of the averaged generator on the held-out pairs; exported where it is the best wanted."""
        if not self.validation:
            return {}
        every = self.settings.run
        means, rows = validate(self.state.average, self.validation, self.world, self.compute, every.strips)
        if every.best_by != "last" and abs(means[every.best_by]) < abs(self.state.best.get(every.best_by, inf)):
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
        if not self.validation or self.settings.run.best_by == "last":
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

    def _factor(self, step: int) -> float:
        """Share of the full learning rates at a step."""
        constant = total_steps(self.settings, self.data.schedule.steps_per_epoch, decay=False)
        return learning_rate_factor(step, self.steps, constant)
