"""From a configuration file to the settings of a training, checked for what cannot be together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wsi_ihc.config import load_settings
from wsi_ihc.errors import SettingsError
from wsi_ihc.generators import load_card
from wsi_ihc.generators.networks import LEARNED_KINDS
from wsi_ihc.training.config import LossSettings, TrainingSettings
from wsi_ihc.training.losses import least_share_rewarded


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
    losses = settings.losses
    if losses.variance_weight and images_compared(settings, ranks) < 2:
        raise SettingsError(
            f"data.batch_size: {settings.data.batch_size}, but the variance penalty compares images of a step and "
            "needs two or more; set data.batch_size=2, data.accumulate=2 or losses.variance_weight=0"
        )
    if not _weighs_something(losses):
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
    for key in ("variance_pool_px", "dab_pool_px"):
        if getattr(losses, key) > settings.data.crop_px:
            raise SettingsError(
                f"losses.{key}: {getattr(losses, key)}, but a crop has {settings.data.crop_px} px; take at most a half"
            )
    if not settings.schedule.constant + settings.schedule.decay:
        raise SettingsError("schedule: constant and decay are both 0, so there is no step to take")


def _weighs_something(losses: LossSettings) -> bool:
    single = (losses.adversarial_weight, losses.l1_weight, losses.dab_weight, losses.variance_weight)
    return any(single) or any(losses.octave_weights)


def images_compared(settings: TrainingSettings, ranks: int = 1) -> int:
    """How many images the variance penalty of one step compares."""
    return settings.data.pairs_per_step * (ranks if settings.losses.variance_over == "ranks" else 1)


ENOUGH_IMAGES = 16
"""In a batch of so many the published penalty asks for what at least one image of twenty shows."""


def doubts_about(settings: TrainingSettings, ranks: int = 1) -> Iterator[str]:
    """Settings that are possible but do not do what they are for, each with the remedy that works."""
    images, losses = images_compared(settings, ranks), settings.losses
    if losses.variance_weight and losses.variance_pool_px == 1 and images < ENOUGH_IMAGES:
        share = least_share_rewarded(images)
        missed = "whatever the share of images that show it" if share >= 1 else f"in fewer than {share:.0%} of images"
        steps = -(-ENOUGH_IMAGES // images) * settings.data.accumulate
        yield (
            f"losses.variance_pool_px: 1 with {images} images a step. Stain that the H&E does not decide is drawn "
            f"towards none where it appears {missed}: the penalty rewards what it should punish. "
            f"Set losses.variance_pool_px=32, or at least data.accumulate={steps}"
        )
