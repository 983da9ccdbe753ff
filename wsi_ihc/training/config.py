"""Every setting of a training: its default, its unit and why. YAML holds what differs, ``--set`` comes last."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from wsi_ihc.config import DeviceName, Precision, Settings
from wsi_ihc.generators.card import Evidence
from wsi_ihc.generators.networks import Architecture, Norm
from wsi_ihc.training.data_settings import AugmentationSettings, DataSettings


class DiscriminatorSettings(Settings):
    """The 70x70 PatchGAN."""

    base_channels: int = Field(default=64, ge=1)
    """Channels after the first convolution ("ndf")."""
    layers: int = Field(default=3, ge=1, le=5)
    """Halvings; three see 70x70 pixels."""
    norm: Norm = "batch"
    """Normalisation of the inner layers."""
    conditional: bool = True
    """Whether it sees the H&E beside the IHC."""


class LossSettings(Settings):
    """Weights of the objective. A weight of 0 switches a term off."""

    adversarial: Literal["bce", "lsgan"] = "bce"
    """Cross entropy, or least squares (calmer)."""
    adversarial_weight: float = Field(default=1.0, ge=0)
    """0 trains without a discriminator."""
    l1_weight: float = Field(default=25.0, ge=0)
    """L1 at full size: 25 in pyramid pix2pix, 100 in pix2pix."""
    octave_weights: tuple[float, ...] = (25.0, 25.0, 25.0)
    """L1 at 1/2, 1/4, 1/8, …: as many octaves as there are weights."""
    variance_weight: float = Field(default=0.0, ge=0)
    """The variance penalty; it starts to matter between 10 and 100. Needs two images a step or more."""
    variance_pool_px: int = Field(default=1, ge=1)
    """Side of the squares over which the variance is averaged before the absolute value. 1 is the published penalty,
    which in small batches rewards hedging; 32 asks for the variance that is there."""
    variance_estimator: Literal["biased", "unbiased"] = "unbiased"
    """Divide by N or by N - 1."""
    variance_over: Literal["ranks", "device"] = "ranks"
    """Over the batches of all processes joined, or over each device's own."""
    dab_weight: float = Field(default=0.0, ge=0)
    """L1 of the mean DAB density of squares of ``dab_pool_px`` pixels: how much brown there is, not where its edge
    lies."""
    dab_pool_px: int = Field(default=16, ge=1)
    """Side of such a square."""

    @field_validator("octave_weights")
    @classmethod
    def _no_negative_weight(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(weight < 0 for weight in value):
            raise ValueError("expected weights of at least 0")
        return value


class OptimiserSettings(Settings):
    """Adam, for both networks."""

    learning_rate: float = Field(default=2e-4, gt=0)
    """Of the generator."""
    discriminator_learning_rate: float | None = Field(default=None, gt=0)
    """Of the discriminator; the same by default."""
    betas: tuple[float, float] = (0.5, 0.999)
    """A first moment of 0.5 is what keeps this kind of GAN from swinging."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Longest gradient of either network's step; off by default, as published."""
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    """Of the averaged generator, the one that is validated and exported; early steps average over fewer."""

    @property
    def learning_rates(self) -> tuple[float, float]:
        """Of the generator and of the discriminator."""
        return self.learning_rate, self.discriminator_learning_rate or self.learning_rate


class ScheduleSettings(Settings):
    """How long, and how the learning rate falls: constant, then linearly to zero, step by step."""

    unit: Literal["epochs", "steps"] = "epochs"
    """Of the two lengths below."""
    constant: int = Field(default=100, ge=0)
    """Length at full learning rate."""
    decay: int = Field(default=100, ge=0)
    """Length of the fall."""


class ComputeSettings(Settings):
    """Where and how it is computed. May change on resume."""

    device: DeviceName = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:1``; under torchrun each process takes the GPU of its local rank."""
    precision: Precision = "auto"
    """``auto``: bfloat16 where the processor multiplies it in hardware, else float32."""
    channels_last: bool = True
    """Memory layout that convolutions are fastest in."""
    compile: bool = False
    """Compile both networks: minutes at the start, faster after; for long runs on a GPU."""


class RunSettings(Settings):
    """What is written, and when. All in steps."""

    seed: int = Field(default=0, ge=0)
    """Of weights, draws, augmentation and dropout. The same seed on the same machine gives the same run."""
    log_every: int = Field(default=20, ge=1)
    """Steps that one line of metrics averages."""
    share_every: int = Field(default=100, ge=1)
    """Between measurements of each term's share of the gradient."""
    checkpoint_every: int = Field(default=500, ge=1)
    """Between checkpoints: what a killed run loses at most."""
    validate_every: int = Field(default=1000, ge=1)
    """Between validations."""
    strips: int = Field(default=4, ge=0)
    """Validation pairs shown beside what was generated."""
    best_by: Literal["last", "l1", "pyramid", "dab_error", "dab_bias"] = "last"
    """Which generator a run exports. ``last``: the average at the last checkpoint, as is published practice. Otherwise
    the one that was best on the validation pairs: ``l1`` and ``pyramid`` (L1 over octaves) favour pale, hedging steps;
    ``dab_error`` compares the DAB of the darkest tenth of each pair, ``dab_bias`` the DAB of all pairs together."""


class CardSettings(Settings):
    """What the exported bundle says about itself."""

    stain: str = "HER2"
    """What the target shows."""
    training_data: str = "not stated"
    """Where the pairs came from."""
    licence: str = "not stated"
    """Of the weights, as far as the data's licence allows one."""
    description: str = ""
    """What it is and is not, in a sentence."""
    evidence: Evidence = "not stated"
    """``demonstration`` where the targets are drawn, ``real tissue`` where real pairs are learnt from and measured."""


class TrainingSettings(Settings):
    """All of it."""

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Of the bundle that comes out."""
    mpp: float | None = Field(default=None, ge=0.05, le=20)
    """Resolution of the training pixels, um/px: convert works at it."""
    start: str | None = None
    """Bundle, by name or path, whose weights the generator begins with; ``network`` and ``mpp``, where left out, are
    the bundle's."""
    network: Architecture = Architecture(kind="resnet")
    discriminator: DiscriminatorSettings = DiscriminatorSettings()
    data: DataSettings = DataSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    losses: LossSettings = LossSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    compute: ComputeSettings = ComputeSettings()
    run: RunSettings = RunSettings()
    card: CardSettings = CardSettings()
