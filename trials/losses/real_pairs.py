"""Does training on real pairs learn anything? Leave-out folds on pairs of one section, against what needs no learning.

    python -m trials.losses.real_pairs HEMIT/      he/ beside mihc/ (or any layout that `wsi-ihc train` knows)

Every pair is held out once. L1 of the generator on the held-out pairs stands beside that of ``recolour``, of the mean
training image and of the best single colour (the median of all training pixels). About three minutes on two cores.
"""

from __future__ import annotations

import os

# Read when torch is first imported: threads that sleep at the end of a loop are kinder to a shared machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from trials.losses.trials import losses_of
from wsi_ihc.evaluation.generated import stain_whole
from wsi_ihc.generators import Stainer, fix_normalisation, load_generator, tune_allocator
from wsi_ihc.measures.bootstrap import mean_estimate
from wsi_ihc.pairs.folders import Pair, find_pairs
from wsi_ihc.training import Trainer, TrainingSettings, load_training_settings
from wsi_ihc.training.distributed import joined_world
from wsi_ihc.training.examples import ImageExample
from wsi_ihc.training.objective import describe, objective_of
from wsi_ihc.training.run_folder import RunFolder
from wsi_ihc.training.sources import Source

_HERE = Path(__file__).resolve().parent
_CONFIG = _HERE.parents[1] / "configs" / "hemit.yaml"
_COMPETITORS = ("the trained generator", "recolour", "mean training image", "best single colour")

Image = NDArray[np.uint8]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, help="folder of the pairs")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--results", type=Path, default=_HERE / "results", help="where runs and real_pairs.json go")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    tune_allocator()
    pairs = find_pairs(arguments.pairs)
    errors: dict[str, list[float]] = {name: [] for name in _COMPETITORS}
    for fold in range(arguments.folds):
        held_out = pairs[fold :: arguments.folds]
        learnt_from = [pair for pair in pairs if pair not in held_out]
        settings = fold_settings(fold, arguments.steps)
        bundle = train(settings, learnt_from, arguments.results / "real_pairs" / f"fold{fold}")
        for name, values in judge(bundle, learnt_from, held_out).items():
            errors[name] += values
        print(f"fold {fold + 1}/{arguments.folds}: " + ", ".join(f"{k} {np.mean(v):.1f}" for k, v in errors.items()))
    found = summary(errors, settings, len(pairs), arguments.folds)
    (arguments.results / "real_pairs.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def fold_settings(fold: int, steps: int) -> TrainingSettings:
    """``configs/hemit.yaml`` with the weights of the variance-penalised system, for a fixed number of steps."""
    settings = load_training_settings(_CONFIG)
    third = steps // 3
    changes = {
        "name": f"fold{fold}",
        "losses": losses_of("variance"),
        "schedule": settings.schedule.model_copy(update={"constant": steps - third, "decay": third}),
        # Nothing chooses among the steps: the held-out pairs are seen once, at the end.
        "data": settings.data.model_copy(update={"validation_pairs": 0}),
        "compute": settings.compute.model_copy(update={"precision": "float32"}),
    }
    return settings.model_copy(update=changes)


def train(settings: TrainingSettings, pairs: Sequence[Pair], folder: Path) -> Path:
    """Train anew on these pairs; returns the bundle."""
    shutil.rmtree(folder, ignore_errors=True)
    source = Source("pairs", 1.0, [ImageExample(pair) for pair in pairs], [])
    run = RunFolder(folder)
    run.begin(settings, "", resume=False)
    with joined_world(settings.compute.device) as world:
        for _ in Trainer(settings, [source], run, world).take_steps():
            pass
    return run.bundle(settings.name)


def judge(bundle: Path, learnt_from: Sequence[Pair], held_out: Sequence[Pair]) -> dict[str, list[float]]:
    """Mean absolute difference from the real image, grey levels, of every held-out pair and competitor."""
    targets = np.stack([ImageExample(pair).read()[1] for pair in learnt_from])
    mean = np.asarray(np.round(targets.mean(axis=0)), np.uint8)
    colour = np.median(targets[:, ::4, ::4].reshape(-1, 3), axis=0)
    stainers = {"the trained generator": stainer_of(str(bundle)), "recolour": stainer_of("recolour")}
    errors: dict[str, list[float]] = {name: [] for name in _COMPETITORS}
    for pair in held_out:
        he, real = ImageExample(pair).read()
        made = {name: stain_whole(stainer, stainer.align_px, he) for name, stainer in stainers.items()}
        made |= {"mean training image": mean, "best single colour": np.broadcast_to(colour, real.shape)}
        for name, image in made.items():
            errors[name].append(float(np.abs(image.astype(np.float64) - real).mean()))
    return errors


def stainer_of(generator: str) -> Stainer:
    """A generator in eval mode, float32."""
    with torch.no_grad():
        network, _ = fix_normalisation(load_generator(generator).build(), "auto")
    return Stainer(network, device="cpu", precision="float32")


def summary(errors: dict[str, list[float]], settings: TrainingSettings, pairs: int, folds: int) -> dict[str, object]:
    """What ``docs/results/comparison.md`` says of it."""
    estimates = {name: mean_estimate(np.array(values), seed=0) for name, values in errors.items()}
    own, rest = np.array(errors[_COMPETITORS[0]]), {name: np.array(errors[name]) for name in _COMPETITORS[1:]}
    wins = ", ".join(f"{name} on {int((own < values).sum())} of {own.size}" for name, values in rest.items())
    network, data = settings.network, settings.data
    steps = settings.schedule.constant + settings.schedule.decay
    return {
        "set_up": f"{pairs} pairs in {folds} folds, every pair held out once. Resnet, {network.blocks} blocks, "
        f"{network.base_channels} channels; {steps} steps of {data.batch_size} crops of {data.crop_px} px; "
        f"{describe(objective_of(settings.losses))}. Bootstrap intervals over the held-out pairs.",
        "l1": {name: (e.value, e.low, e.high) for name, e in estimates.items()},
        "wins": f"The trained generator is closer than {wins} pairs.",
        "errors": errors,
    }


if __name__ == "__main__":
    main()
