"""A look at every pair before the first step, because a bad pair trains as diligently as a good one.

Pairs that cannot be used (no partner, unreadable, sizes differ, smaller than the crop) are left out; pairs that look
odd (blank, or nowhere alike) are used and named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal, cast

import cv2
import numpy as np

from wsi_ihc.errors import DataSetError, SizesDifferError, WsiIhcError
from wsi_ihc.machine.processors import processors
from wsi_ihc.training.densities import DAB, EOSIN, HAEMATOXYLIN, Densities, optical_density, unit
from wsi_ihc.training.examples import Example, Image
from wsi_ihc.training.phantom_examples import PhantomExample
from wsi_ihc.training.sources import Source

Kind = Literal["missing partner", "unreadable", "sizes differ", "too small", "blank", "doubtful alignment"]

LEFT_OUT: tuple[Kind, ...] = ("missing partner", "unreadable", "sizes differ", "too small")

_BLANK_SPREAD = 0.02
"""Standard deviation of the optical density of glass or of one flat colour. Tissue has 0.1 and more."""
_SHIFT_SIDE = 256
_DOUBTFUL_PEAK = 0.06
"""Strangers reach 0.05 by chance; consecutive sections have 0.05 to 0.12, one section stained twice 0.2 and more."""
_DOUBTFUL_SHIFT = 0.10
"""Share of the side. BCI's usual 10 to 50 px of 1024 are half of that."""
_SAMPLE = 128


@dataclass(frozen=True, slots=True)
class Problem:
    """What is odd about one pair."""

    kind: Kind
    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What the check saw."""

    pairs: int
    looked_at: int
    scores: dict[str, int]
    """Training and validation pairs of each HER2 score that names state."""
    problems: tuple[Problem, ...]

    def lines(self, most: int = 5) -> list[str]:
        """The report for people: totals, then each kind of problem with its first few names."""
        scores = ", ".join(f"{score}: {count}" for score, count in sorted(self.scores.items()))
        text = [f"{self.pairs} pairs, {self.looked_at} opened" + (f"; HER2 scores {scores}" if scores else "")]
        for kind, count in Counter(problem.kind for problem in self.problems).items():
            fate = "left out" if kind in LEFT_OUT else "used, but look at them"
            text.append(f"{kind}: {count} ({fate})")
            of_kind = [problem for problem in self.problems if problem.kind == kind]
            text += [f"  {problem.name}: {problem.detail}" for problem in of_kind[:most]]
            if count > most:
                text.append(f"  and {count - most} more")
        return text


def check_sources(
    sources: Sequence[Source],
    *,
    crop_px: int,
    depth: Literal["full", "sample", "off"] = "full",
    advance: Callable[[], object] = lambda: None,
) -> tuple[list[Source], CheckReport]:
    """The sources without their unusable pairs, and the report. ``advance`` is called after each pair looked at.

    Raises:
        DataSetError: when a source has no usable training pair left.
    """
    every = [(source, example) for source in sources for example in (*source.train, *source.validation)]
    # What is drawn on the spot needs no check, and takes longer to draw than to read.
    kept = [item for item in every if not isinstance(item[1], PhantomExample)]
    stride = 1 if depth == "full" else max(1, len(kept) // _SAMPLE)
    chosen = [] if depth == "off" else kept[::stride]

    def look(item: tuple[Source, Example]) -> Problem | None:
        problem = check_example(item[1], f"{item[0].name}/{item[1].name}", crop_px)
        advance()
        return problem

    with ThreadPoolExecutor(processors()) as pool:
        found = list(pool.map(look, chosen))
    bad = {
        id(example)
        for (_, example), problem in zip(chosen, found, strict=True)
        if problem is not None and problem.kind in LEFT_OUT
    }
    alone = [
        Problem("missing partner", str(file), "no image of that name on the other side")
        for s in sources
        for file in s.unpaired
    ]
    scores = Counter(example.score for _, example in every if example.score)
    report = CheckReport(len(every), len(chosen), dict(scores), (*alone, *(p for p in found if p is not None)))
    return [_without(source, bad, report) for source in sources], report


def _without(source: Source, bad: set[int], report: CheckReport) -> Source:
    train = [example for example in source.train if id(example) not in bad]
    if not train:
        first = next(problem for problem in report.problems if problem.kind in LEFT_OUT)
        raise DataSetError(
            f"source {source.name!r} has no usable pair; the first, {first.name}: {first.kind}, {first.detail}"
        )
    return replace(source, train=train, validation=[example for example in source.validation if id(example) not in bad])


def check_example(example: Example, name: str, crop_px: int) -> Problem | None:
    """The first thing that is wrong with an example, if any."""
    try:
        he, ihc = example.read()
    except SizesDifferError as error:
        return Problem("sizes differ", name, str(error))
    except WsiIhcError as error:
        return Problem("unreadable", name, str(error))
    if he.shape != ihc.shape:
        return Problem("sizes differ", name, f"H&E {_size(he)}, IHC {_size(ihc)}")
    if min(he.shape[:2]) < crop_px:
        return Problem("too small", name, f"{_size(he)}, the crop is {crop_px} px; set data.crop_px lower")
    for side, image in (("H&E", he), ("IHC", ihc)):
        if float(optical_density(image[::4, ::4]).std()) < _BLANK_SPREAD:
            return Problem("blank", name, f"the {side} image shows next to nothing")
    shift = misalignment(he, ihc)
    if shift.doubtful:
        return Problem("doubtful alignment", name, f"peak {shift.peak:.3f} at ({shift.down:.0f}, {shift.right:.0f}) px")
    return None


def _size(image: Image) -> str:
    return f"{image.shape[1]} x {image.shape[0]} px"


@dataclass(frozen=True, slots=True)
class Shift:
    """How far one image of a pair seems moved against the other, pixels, and how clearly (correlation peak, 0 to 1)."""

    down: float
    right: float
    peak: float
    side: int

    @property
    def doubtful(self) -> bool:
        """Nowhere alike, or alike only far away."""
        return self.peak < _DOUBTFUL_PEAK or max(abs(self.down), abs(self.right)) > _DOUBTFUL_SHIFT * self.side


def misalignment(he: Image, ihc: Image) -> Shift:
    """Phase correlation of the nuclear stain, which both images share, at 256 pixels a side.

    The sign of the correlation does not count: multiplex pictures show nuclei light on dark.
    """
    side = min(he.shape[:2])
    top, left = (he.shape[0] - side) // 2, (he.shape[1] - side) // 2
    window = cv2.createHanningWindow((_SHIFT_SIDE, _SHIFT_SIDE), cv2.CV_32F)
    spectra = []
    for image, other_stain in ((he, EOSIN), (ihc, DAB)):
        nuclei = _nuclei(np.ascontiguousarray(image[top : top + side, left : left + side]), other_stain)
        spectra.append(np.fft.rfft2(nuclei * window))
    product = np.conj(spectra[0]) * spectra[1]
    surface = np.fft.irfft2(product / np.maximum(np.abs(product), 1e-9), s=(_SHIFT_SIDE, _SHIFT_SIDE))
    # The peak of a shift between pixels spreads over its neighbours: a blur gathers it, 1 for identical images.
    height = 2 * np.pi * cv2.GaussianBlur(np.pad(surface, 4, mode="wrap"), (9, 9), 1)[4:-4, 4:-4]
    down, right = np.unravel_index(int(np.abs(height).argmax()), height.shape)
    signed = [int(place) - _SHIFT_SIDE * (place >= _SHIFT_SIDE // 2) for place in (down, right)]
    factor = side / _SHIFT_SIDE
    return Shift(signed[0] * factor, signed[1] * factor, float(np.abs(height[down, right])), side)


def _nuclei(image: Image, other_stain: Densities) -> Densities:
    """Haematoxylin of a square image as it differs from its surroundings, ``(256, 256)``.

    Slow changes of the background would correlate wherever they are.
    """
    small = cast(Image, cv2.resize(image, (_SHIFT_SIDE, _SHIFT_SIDE), interpolation=cv2.INTER_AREA))
    separate = np.linalg.pinv(np.stack([HAEMATOXYLIN, unit(other_stain)]))[:, 0]
    amount = np.maximum(optical_density(small) @ separate.astype(np.float32), 0)
    band: Densities = cv2.GaussianBlur(amount, (0, 0), 1.5) - cv2.GaussianBlur(amount, (0, 0), 9)
    return band
