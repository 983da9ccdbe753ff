"""From a run to a bundle: the averaged generator with a card that says what it was trained on, and how."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wsi_ihc.errors import OutputError
from wsi_ihc.generators import Bundle, GeneratorCard, load_bundle, save_bundle
from wsi_ihc.generators.card import make_card
from wsi_ihc.training.config import TrainingSettings
from wsi_ihc.training.objective import describe, objective_of
from wsi_ihc.training.run_folder import RunFolder, read_run


def save_average(run: RunFolder, settings: TrainingSettings, average: nn.Module, step: int) -> Bundle:
    """Write the averaged generator as the run's bundle, over the previous one."""
    _, record = read_run(run.path)
    card = generator_card(settings, record, step)
    return save_bundle(run.bundle(settings.name), card, average.state_dict(), overwrite=True)


def export_run(
    run: Path,
    to: Path,
    *,
    name: str | None = None,
    measured: str = "",
    last: bool = False,
    half: bool = False,
    overwrite: bool = False,
) -> Bundle:
    """Write the averaged generator that a run chose by ``run.best_by`` (or the ``last`` one) as a bundle at ``to``.

    ``half`` stores float16. ``measured`` goes on the card: how it was judged after the training, and with which result.

    Raises:
        OutputError: if the folder holds no run, or no generator yet, or ``to`` exists.
        GeneratorError: if ``name`` is none that a card can bear.
    """
    settings, record = read_run(run)
    folder = RunFolder(run)
    if last:
        if not folder.checkpoint.is_file():
            raise OutputError(f"{run}: no checkpoint yet; let the training run longer")
        saved: dict[str, Any] = torch.load(folder.checkpoint, map_location="cpu", weights_only=True)
        card = generator_card(settings, record, saved["step"])
        state: dict[str, Tensor] = saved["average"]
    else:
        if not folder.bundle(settings.name).is_file():
            raise OutputError(f"{run}: no validated generator yet; let the training run longer, or take --last")
        chosen = load_bundle(folder.bundle(settings.name))
        card, state = chosen.card, dict(chosen.state)
    if half:
        state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    named = make_card(**card.model_dump() | {"name": name or settings.name, "measured": measured})
    return save_bundle(to, named, state, overwrite=overwrite)


def generator_card(settings: TrainingSettings, record: Mapping[str, Any], step: int) -> GeneratorCard:
    """The model card of a generator trained with these settings for ``step`` steps, of which ``record`` is run.json."""
    # The folder is nobody's business but the user's.
    start = (
        (f"started from {Path(settings.start).name}, weights sha256 {record['start_sha256']}",)
        if settings.start
        else ()
    )
    digest = hashlib.sha256(json.dumps(settings.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
    return GeneratorCard(
        name=settings.name,
        architecture=settings.network,
        mpp=settings.mpp,
        stain=settings.card.stain,
        training_data=f"{settings.card.training_data} (digest {record['data_digest'][:16]})",
        licence=settings.card.licence,
        description=settings.card.description,
        evidence=settings.card.evidence,
        sources=(
            *start,
            f"wsi-ihc train, {step} steps of {settings.data.pairs_per_step} crops of {settings.data.crop_px} px",
            f"losses: {record.get('objective') or describe(objective_of(settings.losses))}",
            f"settings sha256 {digest}, seed {settings.run.seed}",
        ),
    )
