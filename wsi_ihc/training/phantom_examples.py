"""Pairs drawn on the spot: for trying things out, and for a training that needs no data at all."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from wsi_ihc.phantom import Her2, Look, draw_field
from wsi_ihc.training.config import TrainingSettings
from wsi_ihc.training.data_settings import USUAL_MPP, SourceSettings
from wsi_ihc.training.examples import Example, Image
from wsi_ihc.training.restain import GLASS


@dataclass(frozen=True, slots=True)
class PhantomExample:
    """One field of the phantom, drawn anew at every read under a look that its seed chooses."""

    name: str
    score: Her2
    seed: int
    size_px: int
    mpp: float

    def read(self) -> tuple[Image, Image]:
        look = replace(Look.sample(np.random.default_rng(self.seed)), white_ihc=(GLASS, GLASS, GLASS))
        he, ihc = draw_field(self.seed, self.score, self.size_px, self.mpp, look)
        return he, ihc


def phantom_examples(source: SourceSettings, settings: TrainingSettings) -> list[Example]:
    """``source.count`` fields, the source's HER2 scores in turn."""
    first = source.seed * 1_000_003
    scores, mpp = source.scores, settings.mpp or USUAL_MPP
    return [
        PhantomExample(f"{number}", scores[number % len(scores)], first + number, source.size_px, mpp)
        for number in range(source.count)
    ]
