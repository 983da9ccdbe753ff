"""How many steps, and how fast at each."""

from __future__ import annotations

from wsi_ihc.training.config import TrainingSettings


def total_steps(settings: TrainingSettings, steps_per_epoch: int, *, decay: bool = True) -> int:
    """Steps of the whole schedule, or of its constant part."""
    length = settings.schedule.constant + (settings.schedule.decay if decay else 0)
    return length * (steps_per_epoch if settings.schedule.unit == "epochs" else 1)


def learning_rate_factor(step: int, steps: int, constant: int) -> float:
    """1 for ``constant`` steps, then linearly towards 0, which the step after the last would have."""
    return 1.0 if step < constant else (steps - step) / (steps - constant + 1)
