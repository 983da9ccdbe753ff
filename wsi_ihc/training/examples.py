"""Training examples: an H&E image and its IHC, whatever they are kept in. An example knows how to read itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.pairs import folders as pairs
from wsi_ihc.pairs.images import read_image
from wsi_ihc.pyramid.geometry import Region
from wsi_ihc.slides import SlideView
from wsi_ihc.training.restain import restain

Image: TypeAlias = NDArray[np.uint8]
"""``(height, width, 3)`` RGB."""


class Example(Protocol):
    """``name`` is unique in its source; ``score`` is the HER2 score (0, 1+, 2+, 3+) where it is known."""

    @property
    def name(self) -> str: ...
    @property
    def score(self) -> str | None: ...
    def read(self) -> tuple[Image, Image]:
        """H&E and IHC in working pixels, of one size. Raises ``WsiIhcError`` naming the file that cannot be used."""


@dataclass(frozen=True, slots=True)
class ImageExample:
    """A pair of image files, or the two halves of one."""

    pair: pairs.Pair
    scale: float = 1.0
    """Factor from the files' pixels to working pixels."""

    @property
    def name(self) -> str:
        return f"{self.pair.split}/{self.pair.name}" if self.pair.split else self.pair.name

    @property
    def score(self) -> str | None:
        return self.pair.score

    def read(self) -> tuple[Image, Image]:
        he, ihc = pairs.read_pair(self.pair)
        return scaled(he, self.scale), scaled(ihc, self.scale)


@dataclass(frozen=True, slots=True)
class SlideExample:
    """The same window of two aligned slides, both seen at the working resolution."""

    name: str
    score: str | None
    he: SlideView
    ihc: SlideView
    region: Region

    def read(self) -> tuple[Image, Image]:
        return self.he.read(self.region), self.ihc.read(self.region)


@dataclass(frozen=True, slots=True)
class RestainedExample:
    """An H&E image alone; its partner is made from it by stain separation (``restain``)."""

    name: str
    he: Path
    mpp: float
    """Of the working pixels, um/px: how large a nucleus is."""
    brown: bool = True
    scale: float = 1.0
    score: str | None = None

    def read(self) -> tuple[Image, Image]:
        he = scaled(read_image(self.he), self.scale)
        return he, restain(he, self.mpp, brown=self.brown)


def scaled(image: Image, factor: float) -> Image:
    """The image with its sides times ``factor``, by area averages where it shrinks."""
    if factor == 1.0:
        return np.ascontiguousarray(image)
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cast(Image, cv2.resize(image, None, fx=factor, fy=factor, interpolation=interpolation))
