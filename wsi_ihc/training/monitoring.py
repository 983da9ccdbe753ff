"""What a training says about itself: averages of its measures, files for people and programs, and warnings."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_ihc.generators.pixels import to_pixels
from wsi_ihc.training.run_folder import RunFolder

logger = logging.getLogger(__name__)

Measures = dict[str, float]


class Logbook:
    """``metrics.jsonl`` and TensorBoard. Only the leading process has one."""

    def __init__(self, run: RunFolder, first_step: int) -> None:
        run.forget_after(first_step)
        self._stream = run.metrics.open("a", encoding="utf-8")
        self._samples = run.samples
        self._board = _tensorboard(run.tensorboard, first_step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        if self._board:
            self._board.close()

    def write(self, step: int, measures: Measures) -> None:
        """One line, and one point on each curve."""
        self._stream.write(json.dumps({"step": step, **{k: round(v, 6) for k, v in measures.items()}}) + "\n")
        self._stream.flush()
        if self._board:
            for name, value in measures.items():
                self._board.add_scalar(name, value, step)

    def show(self, step: int, strip: NDArray[np.uint8]) -> None:
        """A picture ``(h, w, 3)`` under ``samples/`` and on the board."""
        self._samples.mkdir(exist_ok=True)
        cv2.imwrite(str(self._samples / f"{step:07d}.jpg"), strip[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
        if self._board:
            self._board.add_image("H&E, real, generated", strip, step, dataformats="HWC")


def _tensorboard(folder: Path, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.info("tensorboard is not installed; metrics.jsonl holds the same numbers")
        return None
    return SummaryWriter(str(folder), purge_step=first_step + 1)


class Averages:
    """Means of measures since they were last taken. Tensors stay on their device until then."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor | float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, measures: Mapping[str, Tensor | float]) -> None:
        for name, value in measures.items():
            self._sums[name] = self._sums[name] + (value.detach() if isinstance(value, Tensor) else value)
            self._counts[name] += 1

    def take(self) -> Measures:
        """The means since the last call."""
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        return means


def spread_ratio(real: Tensor, generated: Tensor) -> Tensor:
    """How much the generated images of a batch differ among themselves, relative to the real ones.

    A ratio of standard deviations over the batch, each a mean over pixels; it falls towards 0 when every input gets the
    same picture.
    """
    with torch.no_grad():
        return _spread(generated) / _spread(real).clamp_min(1e-6)


def _spread(images: Tensor) -> Tensor:
    images = images.float()
    return (images - images.mean(dim=0)).square().mean(dim=0).sqrt().mean()


def accuracy(real_logits: Tensor, fake_logits: Tensor, *, undecided: float) -> Tensor:
    """Share of patches that the discriminator gets right: 1 when it has won and teaches no more, 0.5 when it guesses.

    A logit above ``undecided`` says real: 0 with cross entropy, 0.5 with least squares.
    """
    return ((real_logits > undecided).float().mean() + (fake_logits < undecided).float().mean()) / 2


class CollapseWatch:
    """Turns these measures into warnings, once for each trouble and again when it comes back."""

    _PATIENCE = 5
    """Logged lines in a row before a warning: one bad stretch is not a collapse."""

    def __init__(self) -> None:
        self._bad: dict[str, int] = defaultdict(int)

    def warnings(self, measures: Mapping[str, float]) -> list[str]:
        """Warnings that these averages call for."""
        spread = measures.get("spread_ratio", 1.0)
        accuracy = measures.get("discriminator_accuracy", 0.75)
        troubles = {
            "mode collapse: generated images differ among themselves far less than real ones "
            f"(spread ratio {spread:.2f}); raise losses.variance_weight, with losses.variance_pool_px=32": spread < 0.3,
            f"the discriminator has won ({accuracy:.0%} of patches told apart) and teaches nothing more; lower "
            "optimiser.discriminator_learning_rate or take losses.adversarial=lsgan": accuracy > 0.98,
        }
        found = []
        for text, bad in troubles.items():
            kind = text.partition(" ")[0]
            self._bad[kind] = self._bad[kind] + 1 if bad else 0
            if self._bad[kind] == self._PATIENCE:
                found.append(text)
        return found


def image_strip(rows: list[tuple[Tensor, Tensor, Tensor]], height: int = 256) -> NDArray[np.uint8]:
    """Rows of H&E, real and generated ``(1, 3, h, w)`` tensors as one picture, each image ``height`` pixels high."""
    lines = []
    for row in rows:
        images = [to_pixels(image.cpu())[0].numpy() for image in row]
        sized = [cv2.resize(image, (height, height), interpolation=cv2.INTER_AREA) for image in images]
        lines.append(np.concatenate(sized, axis=1))
    return np.concatenate(lines)
