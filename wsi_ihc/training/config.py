"""Every setting of a training: its default, its unit and why. YAML holds what differs, ``--set`` comes last."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, field_validator

from wsi_ihc.config import DeviceName, Precision, Settings, load_settings
from wsi_ihc.errors import SettingsError
from wsi_ihc.generators import load_card
from wsi_ihc.generators.card import Evidence
from wsi_ihc.generators.networks import LEARNED_KINDS, Architecture, Norm
from wsi_ihc.measures.her2 import HER2_SCORES, Her2

Layout = Literal["images", "slides", "he_only", "phantom"]

USUAL_MPP = 0.5
"""um/px of images for which nobody states it."""


class SourceSettings(Settings):
    """One place where pairs come from."""

    layout: Layout = "images"
    """``images``: BCI's folders, two parallel folders, trainA and trainB, or side-by-side images; ``slides``: pairs of
    aligned slides; ``he_only``: H&E whose target is made by stain separation; ``phantom``: drawn."""
    path: str = "."
    """Relative to ``--data``, or absolute."""
    he: str | None = None
    """Folder of the H&E below ``path`` where its name is unusual; for ``slides``, a folder (HE) or one slide."""
    ihc: str | None = None
    """Folder of the IHC, with the same file names; for ``slides``, a folder (IHC) or one slide."""
    weight: float = Field(default=1.0, gt=0)
    """Share of the draws, relative to the other sources."""
    mpp: float | None = Field(default=None, ge=0.05, le=20)
    """Resolution of these images, um/px; they are resampled to the training's ``mpp`` when it differs by over 10 %."""
    required: bool = True
    """Whether a missing folder is an error; otherwise the others take its share."""
    brown: bool = True
    """``he_only``: whether membranes of what looks like epithelium are made brown, or nothing is."""
    window_px: int = Field(default=1024, ge=64)
    """``slides``: side of a window, working pixels."""
    min_tissue: float = Field(default=0.5, ge=0, le=1)
    """``slides``: share of tissue below which a window is left out."""
    count: int = Field(default=32, ge=1)
    """``phantom``: fields to draw."""
    size_px: int = Field(default=256, ge=64)
    """``phantom``: side of a field."""
    scores: tuple[Her2, ...] = Field(
        default=HER2_SCORES, min_length=1, validation_alias=AliasChoices("scores", "levels")
    )
    """``phantom``: HER2 scores, drawn in turn; name one twice to have it twice as often."""
    seed: int = Field(default=0, ge=0)
    """``phantom``: the same seed draws the same fields."""


class DataSettings(Settings):
    """What is learnt from, and how it reaches the device."""

    root: Path | None = None
    """Folder of the data set; ``--data`` sets it."""
    sources: dict[str, SourceSettings] = Field(default_factory=lambda: {"pairs": SourceSettings()}, min_length=1)
    """By name, mixed by weight."""
    crop_px: int = Field(default=512, ge=32, multiple_of=4)
    """Side of a random crop. Pairs smaller than it are left out by the check."""
    batch_size: int = Field(default=2, ge=1)
    """Pairs in a step, on each device. A short last batch of an epoch is dropped."""
    epoch_pairs: int | None = Field(default=None, ge=1)
    """Draws in an epoch; by default as many as there are pairs."""
    validation_pairs: int = Field(default=32, ge=0)
    """Held out of training where the data has no ``val`` split, at most a quarter. The test split is never touched."""
    validation_px: int = Field(default=512, ge=32, multiple_of=4)
    """Side of the centre crop that validation looks at."""
    check: Literal["full", "sample", "off"] = "full"
    """``full`` opens every pair before the first step, ``sample`` 128 of them."""
    cache_mb: int = Field(default=4096, ge=0)
    """Memory for decoded pairs. What fits is decoded once; the rest again at every draw."""
    workers: int = Field(default=0, ge=0)
    """Threads that read and augment; 0 takes one per core, two at least and sixteen at most."""
    prefetch: int = Field(default=4, ge=1)
    """Batches made ahead of the device."""


class AugmentationSettings(Settings):
    """Random changes that leave a pair a pair. Only the stain and light of the H&E differ from its partner's."""

    flip: bool = True
    """Mirror left to right."""
    turn: bool = True
    """Turn by a random multiple of a right angle."""
    zoom: float = Field(default=0.0, ge=0, le=0.5)
    """Scale both sides by a factor in [1 - zoom, 1 + zoom]."""
    stain: float = Field(default=0.0, ge=0, le=0.8)
    """Scale the optical density of haematoxylin and of eosin by independent factors in [1 - stain, 1 + stain]."""
    light: float = Field(default=0.0, ge=0, le=0.3)
    """Scale red, green and blue by factors in [1 - light, 1]: the lamp and white balance of other scanners."""
    tint: float = Field(default=0.0, ge=0, le=0.5)
    """Scale the optical density of red, green and blue by factors in [1 - tint, 1 + tint]: the hue of other dyes and
    cameras. Glass keeps its colour."""
    monochrome: float = Field(default=0.0, ge=0, le=1)
    """Share of crops whose H&E loses its hue, in part or wholly: other laboratories stain collagen redder and cytoplasm
    bluer, so hue must not decide."""
    focus: float = Field(default=0.0, ge=0, le=4)
    """Blur by a Gaussian of up to ``focus`` pixels, or sharpen by up to that much, each for a third of the crops."""
    ink: float = Field(default=0.0, ge=0, le=1)
    """Share of crops whose H&E lies under green, blue or black pen, of which the IHC shows nothing."""
    brightness: Literal["none", "he", "mean"] = "none"
    """Bring each target to the brightness of its H&E, or all targets to their mean: exposures that differ between
    slides are then not learnt as if they were stain. Known to rescue training on BCI; what is generated follows."""


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
    """The variance penalty; it starts to matter between 10 and 100. Needs a batch of two or more."""
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
    best_by: Literal["l1", "pyramid"] = "pyramid"
    """Validation measure of the best generator. ``pyramid``, a mean over octaves, forgives misaligned sections."""


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


def load_training_settings(
    file: Path | None, *, data: Path | None = None, assignments: tuple[str, ...] = (), ranks: int = 1
) -> TrainingSettings:
    """The settings of ``file`` with ``--data`` and ``--set`` applied, checked for what cannot be together.

    Raises:
        SettingsError: in one line.
        GeneratorError: the bundle to start from cannot be had.
    """
    overrides = {} if data is None else {"data.root": str(data)}
    settings = _with_what_start_says(load_settings(TrainingSettings, file, overrides, assignments))
    _refuse_impossible(settings, ranks)
    return settings


def _with_what_start_says(settings: TrainingSettings) -> TrainingSettings:
    """Network and resolution of the bundle to start from where the settings name none."""
    if settings.start is None:
        return settings
    card = load_card(settings.start)
    if card.architecture.kind not in LEARNED_KINDS:
        raise SettingsError(f"start: {settings.start} has no weights to start from; give a bundle that was trained")
    known = {"network": card.architecture, "mpp": card.mpp}
    settings = settings.model_copy(update={k: v for k, v in known.items() if k not in settings.model_fields_set})
    for key, wanted in settings.network:
        if (held := getattr(card.architecture, key)) != wanted:
            raise SettingsError(
                f"network.{key}: {wanted!r}, but it is {held!r} in {settings.start}, from which the generator is to "
                "start; leave network out, or give it the bundle's values"
            )
    return settings


def _refuse_impossible(settings: TrainingSettings, ranks: int) -> None:
    losses, batch = settings.losses, settings.data.batch_size
    seen = batch * ranks if losses.variance_over == "ranks" else batch
    if losses.variance_weight and seen < 2:
        raise SettingsError(
            f"data.batch_size: {batch}, but the variance penalty compares images of a batch and needs two or more; "
            "set data.batch_size=2 or losses.variance_weight=0"
        )
    if not (losses.adversarial_weight or losses.l1_weight or any(losses.octave_weights) or losses.variance_weight):
        raise SettingsError("losses: every weight is 0, so there is nothing to learn from")
    if settings.network.kind not in LEARNED_KINDS:
        raise SettingsError(f"network.kind: {settings.network.kind} has no weights to train; choose resnet or unet")
    align = settings.network.alignment
    for key in ("crop_px", "validation_px"):
        side = getattr(settings.data, key)
        if side % align:
            raise SettingsError(f"data.{key}: {side} is no multiple of {align}, which {settings.network.label} needs")
    smallest = 2 ** len(losses.octave_weights)
    if settings.data.crop_px < 2 * smallest:
        raise SettingsError(
            f"data.crop_px: {settings.data.crop_px} is too small for {len(losses.octave_weights)} octaves"
        )
    if not settings.schedule.constant + settings.schedule.decay:
        raise SettingsError("schedule: constant and decay are both 0, so there is no step to take")
