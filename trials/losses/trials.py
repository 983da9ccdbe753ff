"""The trainings of ``compare_losses.py``: data drawn once, one generator for each trial, judged on the same fields.

Everything but the losses (and, in the sweeps, the batch) is the same for all trials of a scale. Nothing is done twice:
a trial that was judged is left alone, one that was interrupted goes on from its last checkpoint.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.evaluation.evaluate import Options, evaluate, load_test_set, prepare_output
from wsi_ihc.evaluation.generated import from_generator, from_predictions
from wsi_ihc.pairs.folders import find_pairs, read_pair
from wsi_ihc.pairs.images import read_image
from wsi_ihc.phantom import draw_pairs
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.training import Trainer, TrainingSettings, find_sources, load_training_settings
from wsi_ihc.training.config import (
    ComputeSettings,
    DiscriminatorSettings,
    LossSettings,
    OptimiserSettings,
    RunSettings,
    ScheduleSettings,
)
from wsi_ihc.training.data_settings import AugmentationSettings, DataSettings
from wsi_ihc.training.distributed import joined_world
from wsi_ihc.training.run_folder import RunFolder
from wsi_ihc.training.sources import data_digest

logger = logging.getLogger(__name__)

System = Literal["pix2pix", "pyramid", "variance"]
Variant = Literal["aligned", "misaligned"]

SYSTEMS: tuple[System, ...] = ("pix2pix", "pyramid", "variance")
VARIANTS: tuple[Variant, ...] = ("aligned", "misaligned")
BASELINES = ("recolour", "identity", "mean", "truth")
SHIFT_PX = (10, 30)
"""Shortest and longest distance between the two sides of a misaligned pair."""
MPP = 0.5

_CONFIGS = Path(__file__).resolve().parents[2] / "configs"
_MARGIN_PX = 32


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the comparison is: data, networks and the length of one training."""

    name: str
    field_px: int
    train_fields: int
    test_fields: int
    blocks: int
    channels: int
    discriminator_channels: int
    dropout: bool
    crop_px: int
    batch: int
    steps: int
    learning_rate: float
    discriminator_learning_rate: float
    ema_decay: float
    precision: Literal["auto", "float32"] = "auto"


# With so few channels a step is faster in float32: 0.32 s of a core at 128 px, against 0.50 s in bfloat16.
CPU = Scale("cpu", 256, 160, 64, blocks=3, channels=16, discriminator_channels=16, dropout=False, crop_px=96, batch=4,
            steps=1000, learning_rate=1e-3, discriminator_learning_rate=4e-4, ema_decay=0.99,
            precision="float32")  # fmt: skip
GPU = Scale("gpu", 512, 1600, 400, blocks=9, channels=64, discriminator_channels=64, dropout=True, crop_px=384, batch=4,
            steps=40_000, learning_rate=2e-4, discriminator_learning_rate=2e-4, ema_decay=0.999)  # fmt: skip
TINY = Scale("tiny", 64, 8, 8, blocks=1, channels=4, discriminator_channels=4, dropout=False, crop_px=32, batch=4,
             steps=4, learning_rate=1e-3, discriminator_learning_rate=4e-4, ema_decay=0.9)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trial:
    """One training. ``variance_weight`` and ``batch`` differ from the system's and the scale's only in the sweeps."""

    variant: Variant
    system: System
    seed: int
    batch: int
    variance_weight: float

    @property
    def name(self) -> str:
        return f"{self.variant}-{self.system}-w{self.variance_weight:g}-b{self.batch}-s{self.seed}"


def losses_of(system: System) -> LossSettings:
    """The system's weights, as ``configs/bci_*.yaml`` has them."""
    return load_training_settings(_CONFIGS / f"bci_{system}.yaml").losses


def main_trials(scale: Scale, seeds: int) -> list[Trial]:
    """Every system on both variants; seed by seed, so that an interrupted comparison is complete for fewer seeds."""
    return [
        Trial(variant, system, seed, scale.batch, losses_of(system).variance_weight)
        for seed in range(seeds)
        for variant in VARIANTS
        for system in SYSTEMS
    ]


def weight_sweep(scale: Scale) -> list[Trial]:
    """The variance weight from none to ten times the usual, on misaligned pairs, the first seed; 0 is pyramid."""
    return [_penalised(scale.batch, weight) for weight in (0, 3, 10, 30, 100, 300)]


def batch_sweep(scale: Scale) -> list[Trial]:
    """Batches of half and twice the usual, without the penalty and with it; the same number of crops for each."""
    weights = (0, losses_of("variance").variance_weight)
    batches = (scale.batch // 2, scale.batch, 2 * scale.batch)
    return [_penalised(batch, weight) for batch in batches for weight in weights]


def _penalised(batch: int, weight: float) -> Trial:
    return Trial("misaligned", "variance" if weight else "pyramid", 0, batch, weight)


def settings_of(trial: Trial, scale: Scale, data: Path) -> TrainingSettings:
    """What the trial is trained with."""
    steps = scale.steps * scale.batch // trial.batch
    return TrainingSettings(
        name=trial.name,
        mpp=MPP,
        network={"kind": "resnet", "blocks": scale.blocks, "base_channels": scale.channels, "dropout": scale.dropout},
        discriminator=DiscriminatorSettings(base_channels=scale.discriminator_channels),
        # No validation: every system is judged after the same steps, and a choice by L1 would favour blur.
        data=DataSettings(root=data, crop_px=scale.crop_px, batch_size=trial.batch, validation_pairs=0, check="off"),
        augmentation=AugmentationSettings(stain=0.1),
        losses=losses_of(trial.system).model_copy(update={"variance_weight": trial.variance_weight}),
        optimiser=OptimiserSettings(
            learning_rate=scale.learning_rate,
            discriminator_learning_rate=scale.discriminator_learning_rate,
            ema_decay=scale.ema_decay,
        ),
        schedule=ScheduleSettings(unit="steps", constant=steps // 2, decay=steps - steps // 2),
        compute=ComputeSettings(precision=scale.precision),
        run=RunSettings(seed=trial.seed, log_every=20, share_every=50, checkpoint_every=200),
    )


def draw_data(scale: Scale, folder: Path) -> None:
    """Both variants of the data set below ``folder``: the same sections and H&E pixels, the IHC in place or moved.

    Fields are drawn with a margin and cut, so a moved IHC shows true tissue up to its border and is not interpolated.
    """
    if all((folder / variant).is_dir() for variant in VARIANTS):
        return
    drawn = folder / "drawn"
    if not drawn.is_dir():
        side, count = scale.field_px + 2 * _MARGIN_PX, scale.train_fields + scale.test_fields
        draw_pairs(drawn, count, size=Size(side, side), mpp=MPP, seed=11, train_share=scale.train_fields / count)
    for variant in VARIANTS:
        part = folder / f"{variant}.part"
        for index, pair in enumerate(find_pairs(drawn)):
            shift = _shift(index) if variant == "misaligned" else (0, 0)
            for stain, image, offset in zip(("HE", "IHC"), read_pair(pair), ((0, 0), shift), strict=True):
                target = part / stain / str(pair.split) / f"{pair.name}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                write_png(target, _cut(image, scale.field_px, offset))
        part.replace(folder / variant)
    shutil.rmtree(drawn)


def _shift(index: int) -> tuple[int, int]:
    """How far the IHC of a misaligned pair is moved, down and right: any direction, lengths evenly within bounds."""
    random = np.random.default_rng((20, index))
    length, angle = random.uniform(*SHIFT_PX), random.uniform(0, 2 * np.pi)
    return round(length * np.sin(angle)), round(length * np.cos(angle))


def _cut(image: NDArray[np.uint8], side: int, offset: tuple[int, int]) -> NDArray[np.uint8]:
    top, left = _MARGIN_PX - offset[0], _MARGIN_PX - offset[1]
    return image[top : top + side, left : left + side]


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """One RGB image."""
    _, encoded = cv2.imencode(".png", image[..., ::-1])
    path.write_bytes(encoded.tobytes())


def run_trial(trial: Trial, scale: Scale, results: Path) -> None:
    """Train and judge, unless that was done; the interrupted goes on."""
    folder = results / "trials" / trial.name
    if is_judged(folder, trial.variant):
        return
    settings = settings_of(trial, scale, results / "data" / trial.variant)
    bundle = train(settings, folder)
    judge(folder, trial.variant, results, generator=str(bundle))


def train(settings: TrainingSettings, folder: Path) -> Path:
    """Train to the end; returns the averaged generator of the last step."""
    sources, run = find_sources(settings), RunFolder(folder)
    run.begin(settings, data_digest(sources), resume=True)
    with joined_world(settings.compute.device) as world:
        trainer = Trainer(settings, sources, run, world)
        trainer.resume()
        for report in trainer.take_steps():
            for warning in report.warnings:
                logger.warning("%s, step %d: %s", settings.name, report.step, warning)
    return run.bundle(settings.name)


def references_of(variant: Variant) -> tuple[Variant, ...]:
    """What is judged against: the variant's own test fields, and for the misaligned one the true stain as well."""
    return ("aligned",) if variant == "aligned" else ("misaligned", "aligned")


def report_folder(folder: Path, reference: Variant) -> Path:
    """Where the judgement of a trial or baseline lies."""
    return folder / f"against_{reference}"


def is_judged(folder: Path, variant: Variant) -> bool:
    """Whether every report of the trial is there."""
    return all((report_folder(folder, reference) / "report.json").is_file() for reference in references_of(variant))


def judge(
    folder: Path, variant: Variant, results: Path, *, generator: str | None = None, predictions: Path | None = None
) -> None:
    """Reports of a generator, or of images that are there already, on the test fields of ``variant``."""
    if generator:
        predictions = folder / "generated"
        from_generator(generator, load_test_set(results / "data" / variant).pairs, predictions)
    assert predictions is not None
    for reference in references_of(variant):
        test_set = load_test_set(results / "data" / reference)
        target = report_folder(folder, reference)
        prepare_output(target, overwrite=True)
        options = Options(workers=1, html=False)
        evaluate(from_predictions(predictions, test_set.pairs), test_set, target, options)


def run_baseline(name: str, variant: Variant, results: Path) -> None:
    """Judge what needs no training: ``recolour``, the H&E itself, the mean of the training IHC, the true stain."""
    folder, data = results / "baselines" / f"{variant}-{name}", results / "data" / variant
    if is_judged(folder, variant):
        return
    match name:
        case "recolour" | "identity":
            judge(folder, variant, results, generator=name)
        case "mean":
            predictions = folder / "generated"
            predictions.mkdir(parents=True, exist_ok=True)
            mean = _mean_image([pair.ihc for pair in find_pairs(data, "train")])
            for pair in find_pairs(data, "test"):
                write_png(predictions / f"{pair.name}.png", mean)
            judge(folder, variant, results, predictions=predictions)
        case "truth":
            judge(folder, variant, results, predictions=results / "data" / "aligned" / "IHC" / "test")


def _mean_image(files: list[Path]) -> NDArray[np.uint8]:
    mean = np.mean([read_image(file) for file in files], axis=0, dtype=np.float64)
    return np.asarray(np.round(mean), np.uint8)
