"""The folder of a run.

run.json              resolved settings, versions, digest of the data, seed: enough to repeat it
dataset.txt           what the check of the data set said
metrics.jsonl         one line per logged step
checkpoints/last.pt   everything, to resume from
NAME.safetensors      the averaged generator, last or best (run.best_by): a bundle for convert and evaluate
samples/, tensorboard/
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from wsi_ihc.config import first_problem
from wsi_ihc.errors import OutputError, SettingsError
from wsi_ihc.generators import load_card
from wsi_ihc.machine.atomic import write_atomically
from wsi_ihc.training.config import TrainingSettings
from wsi_ihc.training.objective import Term, describe, objective_of

# What may differ when a run goes on: it changes where and how fast, not what is computed.
_FREE_SECTIONS = ("compute", "card")
_FREE_KEYS = (
    "data.root",
    "data.workers",
    "data.prefetch",
    "data.cache_mb",
    "data.check",
    "run.best_by",
    "run.log_every",
    "run.strips",
)


IDENTITY = "run.json"


class RunFolder:
    """Paths of a run, and its identity."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "checkpoints" / "last.pt"
        self.metrics = path / "metrics.jsonl"
        self.samples = path / "samples"
        self.tensorboard = path / "tensorboard"
        self._identity = path / IDENTITY

    def bundle(self, name: str) -> Path:
        """Where the generator goes."""
        return self.path / f"{name}.safetensors"

    def begin(
        self, settings: TrainingSettings, digest: str, *, resume: bool, terms: Sequence[Term] | None = None
    ) -> None:
        """Claim the folder for this run, or make sure that it is this run's already.

        ``terms`` is the generator's objective; by default what the settings weigh.

        Raises:
            OutputError: if another run (or anything else) is in it.
            SettingsError: if the settings differ from those it was started with.
            StorageError: if the disk refuses.
        """
        objective = describe(objective_of(settings.losses) if terms is None else terms)
        if self._identity.is_file():
            if not resume:
                raise OutputError(
                    f"{self.path}: holds another run; continue it with --resume, or choose another folder"
                )
            self._compare(settings, digest, objective)
            return
        if self.path.is_dir() and any(self.path.iterdir()):
            raise OutputError(f"{self.path}: not empty, and no run of ours; choose another folder")
        record = {
            "settings": settings.model_dump(mode="json"),
            "objective": objective,
            "data_digest": digest,
            "start_sha256": load_card(settings.start).sha256 if settings.start else None,
            "versions": {name: version(name) for name in ("wsi-ihc", "torch", "numpy", "opencv-python-headless")},
            "machine": {
                "python": platform.python_version(),
                "platform": platform.platform(),
                "threads": torch.get_num_threads(),
            },
        }
        write_atomically(self._identity, (json.dumps(record, indent=2) + "\n").encode())

    def write_check(self, lines: list[str]) -> None:
        """Keep the report of the data-set check beside what was trained on it."""
        (self.path / "dataset.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def _compare(self, settings: TrainingSettings, digest: str, objective: str) -> None:
        # Read as settings, not as text: one that an earlier version did not have is at its default.
        earlier, record = read_run(self.path)
        before, now = _flat(earlier.model_dump(mode="json")), _flat(settings.model_dump(mode="json"))
        for key in sorted(before.keys() | now.keys()):
            if key in _FREE_KEYS or key.partition(".")[0] in _FREE_SECTIONS:
                continue
            if before.get(key) != now.get(key):
                raise SettingsError(
                    f"{key}: the run in {self.path} was started with {before.get(key)!r}, not {now.get(key)!r}; "
                    "resume with the same settings, or start another run"
                )
        if record.get("objective", objective) != objective:
            raise SettingsError(
                f"{self.path}: the run was started with the losses {record['objective']}, not {objective}; "
                "resume with the same losses, or start another run"
            )
        if record["data_digest"] != digest:
            raise SettingsError(f"{self.path}: the data set has changed since the run was started; start another run")

    def forget_after(self, step: int) -> None:
        """Drop logged lines later than ``step``: the steps after the last checkpoint are taken again."""
        if not self.metrics.is_file():
            return
        lines = self.metrics.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _step_of(line) <= step]
        write_atomically(self.metrics, "".join(f"{line}\n" for line in kept).encode())


def read_run(path: Path) -> tuple[TrainingSettings, dict[str, Any]]:
    """The settings of the run in a folder, and everything else that its ``run.json`` says.

    Raises:
        OutputError: if there is no run, or one of another version whose settings are no longer known.
    """
    record = _record(path)
    try:
        return TrainingSettings.model_validate(record["settings"]), record
    except ValidationError as error:
        raise OutputError(f"{path}: a run of another version; its run.json has {first_problem(error)}") from None


def _record(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((path / IDENTITY).read_text(encoding="utf-8"))
        if record["settings"] and record["data_digest"]:
            return record
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise OutputError(f"{path}: no run of wsi-ihc train (no readable {IDENTITY})")


def _step_of(line: str) -> float:
    """A line cut short by a kill belongs to no step."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
