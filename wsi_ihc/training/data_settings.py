"""Settings of what is learnt from: where pairs come from, how they are drawn, and what is changed at random."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, field_validator

from wsi_ihc.config import Settings
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
    case: str | None = None
    """Regular expression over the names of pairs whose first group is the case, for example ``^([^_]+)_``. By default
    two numbers at the end of a name are the place of a patch in its case."""
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
    """Pairs that are in a device's memory at once. A short last batch of an epoch is dropped."""
    accumulate: int = Field(default=1, ge=1)
    """Batches in a step. The gradient is that of all ``batch_size * accumulate`` pairs together, for every loss, the
    variance penalty included; norm layers see one batch at a time. Above 1 each batch is generated twice: a third
    slower, in the memory of one batch."""
    epoch_pairs: int | None = Field(default=None, ge=1)
    """Draws in an epoch; by default as many as there are pairs."""
    validation_pairs: int = Field(default=32, ge=0)
    """Held out of training, whole cases at a time and at most a quarter. A ``val`` split is taken instead where there
    is a test split too; without one ``val`` is what is judged on, and what is judged is never touched."""
    validation_px: int = Field(default=512, ge=32, multiple_of=4)
    """Side of the centre crop that validation looks at."""
    check: Literal["full", "sample", "off"] = "full"
    """``full`` opens every pair before the first step, ``sample`` 128 of them."""
    cache_mb: int = Field(default=4096, ge=0)
    """Memory for decoded pairs. What fits is decoded once; the rest again at every draw."""
    workers: int = Field(default=0, ge=0)
    """Threads that read and augment; 0 takes one per core, two at least and sixteen at most."""
    prefetch: int = Field(default=4, ge=1)
    """Steps whose pairs are made ahead of the device."""

    @property
    def pairs_per_step(self) -> int:
        """Pairs of a step on each device."""
        return self.batch_size * self.accumulate


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
    brightness: Literal["none", "glass"] = "none"
    """``glass``: scale each target so that its bare glass has one grey level, as scanners differ in it. Stain keeps its
    density."""

    @field_validator("brightness", mode="before")
    @classmethod
    def _no_brightness_of_stain(cls, value: object) -> object:
        if value in ("he", "mean"):
            raise ValueError(
                f"{value!r} is gone: it turned differences of brightness into stain; 'glass' matches the bare glass"
            )
        return value
