"""The DAB pixel score of a stained image: how many of its tissue pixels are how brown.

It describes pixels. It is no H-score, which counts cells, and no HER2 score, which ASCO/CAP (Wolff et al., J Clin Oncol
36:2105, 2018, affirmed 2023) give for completeness and intensity of membranes in invasive tumour.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.measures.stain import BROWN_OD, HISTOGRAM_BINS, density_histogram, unmix

CUTS = (BROWN_OD, 0.4, 0.6)
"""DAB optical densities from which a pixel is weakly, moderately and strongly brown: QuPath's usual 1+, 2+ and 3+."""
Grade = Literal["negative", "weak", "moderate", "strong"]
GRADES: tuple[Grade, ...] = ("negative", "weak", "moderate", "strong")


@dataclass(frozen=True)
class Readout:
    """Counts of tissue pixels; readouts of parts of an image add up to that of the whole."""

    counts: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Pixels by grade, in the order of ``GRADES``."""
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(HISTOGRAM_BINS, np.int64), repr=False)
    """Pixels in equal bins of DAB optical density from 0 to 2; pixels outside count in the end bins."""

    def __add__(self, other: Readout) -> Readout:
        negative, weak, moderate, strong = (a + b for a, b in zip(self.counts, other.counts, strict=True))
        return Readout((negative, weak, moderate, strong), self.histogram + other.histogram)

    @property
    def pixels(self) -> int:
        """Tissue pixels, of any grade."""
        return sum(self.counts)

    @property
    def shares(self) -> tuple[float, float, float, float]:
        """Share of the tissue by grade, 0 to 1; NaN without tissue."""
        negative, weak, moderate, strong = (count / self.pixels if self.pixels else np.nan for count in self.counts)
        return negative, weak, moderate, strong

    @property
    def positive_share(self) -> float:
        """Share of the tissue that is brown at all, 0 to 1."""
        return 1 - self.shares[0]

    @property
    def score(self) -> float:
        """DAB pixel score, 0 to 300: percent weak + 2 x percent moderate + 3 x percent strong."""
        _, weak, moderate, strong = self.shares
        return 100 * (weak + 2 * moderate + 3 * strong)


def read_dab(image: NDArray[np.uint8], tissue: NDArray[np.bool_] | None = None) -> Readout:
    """The readout of a haematoxylin and DAB image (height, width, 3), on the pixels of ``tissue`` (height, width).

    All pixels count without ``tissue``. On H&E the result means nothing: eosin passes for weak DAB.
    """
    density = unmix(image, "h-dab")[1]
    values = density.ravel() if tissue is None else density[tissue]
    grade = np.bincount(np.searchsorted(np.array(CUTS, np.float32), values, side="right"), minlength=len(GRADES))
    negative, weak, moderate, strong = (int(count) for count in grade)
    return Readout((negative, weak, moderate, strong), density_histogram(values))
