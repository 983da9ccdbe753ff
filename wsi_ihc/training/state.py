"""What a training is made of at one moment, and how it goes to disk and comes back."""

from __future__ import annotations

import io
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wsi_ihc.errors import SettingsError, one_line
from wsi_ihc.generators import build_network, initialise, load_generator
from wsi_ihc.machine.atomic import write_atomically
from wsi_ihc.training.config import TrainingSettings
from wsi_ihc.training.discriminator import PatchDiscriminator
from wsi_ihc.training.randomness import seed_of


class TrainingState:
    """Both networks, the averaged generator, both optimisers, both gradient scalers, and the number of steps taken.

    There is no state of random numbers and none of the data: both follow from the seed and the step.
    """

    def __init__(self, settings: TrainingSettings, device: torch.device, *, scale_gradients: bool) -> None:
        layout = torch.channels_last if settings.compute.channels_last else torch.contiguous_format
        seed, optimiser = settings.run.seed, settings.optimiser
        generator = initialise(build_network(settings.network), seed_of(0, seed))
        if settings.start:
            generator.load_state_dict(load_generator(settings.start).state)
        discriminator = initialise(PatchDiscriminator(settings.discriminator), seed_of(0, seed + 1))
        self.generator = generator.to(device, memory_format=layout).train()  # type: ignore[call-overload]
        self.discriminator = discriminator.to(device, memory_format=layout).train()  # type: ignore[call-overload]
        self.average: nn.Module = deepcopy(self.generator).eval().requires_grad_(False)
        rate, discriminator_rate = optimiser.learning_rates
        self.generator_optimiser = torch.optim.Adam(self.generator.parameters(), rate, optimiser.betas)
        self.discriminator_optimiser = torch.optim.Adam(
            self.discriminator.parameters(), discriminator_rate, optimiser.betas
        )
        self.generator_scaler = torch.amp.GradScaler(device.type, enabled=scale_gradients)
        self.discriminator_scaler = torch.amp.GradScaler(device.type, enabled=scale_gradients)
        self.step = 0
        self.best: dict[str, float] = {}
        """Validation measures of the best generator so far, with the step it was seen at."""

    def set_learning_rate(self, factor: float, settings: TrainingSettings) -> None:
        """Both learning rates at ``factor`` of their full value."""
        optimisers = (self.generator_optimiser, self.discriminator_optimiser)
        for optimiser, rate in zip(optimisers, settings.optimiser.learning_rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = factor * rate

    def update_average(self, decay: float) -> None:
        """Move the averaged generator, running statistics included, towards the present one.

        Early on over a tenth of the steps taken, or the first weights would linger for thousands of steps.
        """
        weight = 1 - min(decay, (1 + self.step) / (10 + self.step))
        own, new = self.average.state_dict(), self.generator.state_dict()
        with torch.no_grad():
            for name, value in own.items():
                if value.is_floating_point():
                    value.lerp_(new[name], weight)
                else:
                    value.copy_(new[name])

    def is_finite(self) -> bool:
        """Whether every weight of both networks is a number."""
        networks = (self.generator, self.discriminator)
        return all(bool(p.isfinite().all()) for network in networks for p in network.parameters())

    def save(self, path: Path) -> None:
        """Write everything under ``path`` in one step: a kill leaves the previous file whole.

        Raises:
            StorageError: if the disk refuses.
        """
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        buffer = io.BytesIO()
        torch.save({**parts, "step": self.step, "best": self.best}, buffer)
        write_atomically(path, buffer.getbuffer())

    def load(self, path: Path, device: torch.device) -> None:
        """Become what was saved. Raises ``SettingsError`` when it does not fit these settings."""
        try:
            saved: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
            for name, part in self._parts().items():
                part.load_state_dict(saved[name])
        except (RuntimeError, KeyError, ValueError, OSError, EOFError) as error:
            first = one_line(error)[:160]
            raise SettingsError(f"{path}: does not fit this configuration, or is damaged ({first})") from None
        self.step, self.best = saved["step"], saved["best"]

    def _parts(self) -> dict[str, Any]:
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "average": self.average,
            "generator_optimiser": self.generator_optimiser,
            "discriminator_optimiser": self.discriminator_optimiser,
            "generator_scaler": self.generator_scaler,
            "discriminator_scaler": self.discriminator_scaler,
        }
