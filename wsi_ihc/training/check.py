"""Every pair is looked at before the first step, because a bad pair trains as diligently as a good one.

Pairs that cannot be used (no partner, unreadable, sizes differ, too small, both sides the same image) are left out.
Blank ones are used and named. The rest is asked of the whole set, as single pairs cannot prove it: are the sides H&E
and IHC, the right way round, in plausible colours, and in how many pairs do both images seem to belong together?
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from wsi_ihc.errors import DataSetError, SizesDifferError, WsiIhcError
from wsi_ihc.machine.processors import processors
from wsi_ihc.training.alignment import misalignment
from wsi_ihc.training.densities import optical_density
from wsi_ihc.training.examples import Example, Image, RestainedExample
from wsi_ihc.training.phantom_examples import PhantomExample
from wsi_ihc.training.sides import Hues, doubts_about_sides, hues_of
from wsi_ihc.training.sources import Source

Kind = Literal["missing partner", "unreadable", "sizes differ", "too small", "same image", "blank"]

LEFT_OUT: tuple[Kind, ...] = ("missing partner", "unreadable", "sizes differ", "too small", "same image")

_BLANK_SPREAD = 0.02
"""Standard deviation of the optical density of glass or of one flat colour. Tissue has 0.1 and more."""
_SAME_LEVELS = 2.0
"""Mean difference, grey levels, below which two files hold one image: JPEG of the same picture differs by about 1."""
_SAMPLE = 128
_APART = 0.5
"""Share of doubtfully aligned pairs from which the two sides are not believed to belong together."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault of one pair."""

    kind: Kind
    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class Look:
    """Findings on one pair; hues and alignment only of pairs that can be used."""

    problem: Problem | None = None
    he: Hues | None = None
    ihc: Hues | None = None
    apart: bool = False
    """Nowhere alike, or alike only far away. Single consecutive sections look so too: it counts as a rate."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Findings of the check."""

    pairs: int
    looked_at: int
    scores: dict[str, int]
    """Training and validation pairs of each HER2 score that names state."""
    problems: tuple[Problem, ...]
    doubts: tuple[str, ...] = ()
    """Doubts about the whole set, one line each."""
    compared: int = 0
    """Pairs whose alignment was measured."""
    apart: tuple[str, ...] = ()
    """Names of those among them whose two images do not seem to belong together."""

    @property
    def sound(self) -> bool:
        """Whether nothing stands against training on this set."""
        return not self.problems and not self.doubts

    def lines(self, most: int = 5) -> list[str]:
        """The report for people: totals, doubts about the set, then each kind of problem with its first few names."""
        scores = ", ".join(f"{score}: {count}" for score, count in sorted(self.scores.items()))
        text = [f"{self.pairs} pairs, {self.looked_at} opened" + (f"; HER2 scores {scores}" if scores else "")]
        text += [f"doubtful: {doubt}" for doubt in self.doubts]
        if self.apart:
            rate = len(self.apart) / self.compared
            text.append(
                f"alignment: {len(self.apart)} of {self.compared} pairs ({rate:.0%}) seem apart; consecutive sections "
                "have such pairs, unrelated images nearly always"
            )
            text += _first(list(self.apart), most)
        for kind, count in Counter(problem.kind for problem in self.problems).items():
            fate = "left out" if kind in LEFT_OUT else "used, but look at them"
            text.append(f"{kind}: {count} ({fate})")
            text += _first([f"{p.name}: {p.detail}" for p in self.problems if p.kind == kind], most)
        return text


def _first(names: list[str], most: int) -> list[str]:
    more = [f"  and {len(names) - most} more"] if len(names) > most else []
    return [f"  {name}" for name in names[:most]] + more


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
    # Drawn pairs need no check, and take longer to draw than others to read.
    kept = [item for item in every if not isinstance(item[1], PhantomExample)]
    stride = 1 if depth == "full" else max(1, len(kept) // _SAMPLE)
    chosen = [] if depth == "off" else kept[::stride]

    def look(item: tuple[Source, Example]) -> Look:
        seen = look_at(item[1], _name(item), crop_px)
        advance()
        return seen

    with ThreadPoolExecutor(processors()) as pool:
        looks = list(pool.map(look, chosen))
    bad = {
        id(example)
        for (_, example), seen in zip(chosen, looks, strict=True)
        if seen.problem is not None and seen.problem.kind in LEFT_OUT
    }
    report = _report(sources, every, chosen, looks)
    return [_without(source, bad, report) for source in sources], report


def _name(item: tuple[Source, Example]) -> str:
    return f"{item[0].name}/{item[1].name}"


def _report(
    sources: Sequence[Source],
    every: Sequence[tuple[Source, Example]],
    chosen: Sequence[tuple[Source, Example]],
    looks: Sequence[Look],
) -> CheckReport:
    alone = [
        Problem("missing partner", str(file), "no image of that name on the other side")
        for source in sources
        for file in source.unpaired
    ]
    doubts: list[str] = []
    apart: list[str] = []
    compared = 0
    for source in sources:
        # The target of H&E alone is made from it: there is no second side to doubt.
        of_source = [
            (item, seen)
            for item, seen in zip(chosen, looks, strict=True)
            if item[0] is source and seen.he is not None and not isinstance(item[1], RestainedExample)
        ]
        here = [_name(item) for item, seen in of_source if seen.apart]
        doubts += _doubts(source, [seen for _, seen in of_source], len(here))
        apart += here
        compared += len(of_source)
    scores = Counter(example.score for _, example in every if example.score)
    problems = (*alone, *(seen.problem for seen in looks if seen.problem is not None))
    return CheckReport(len(every), len(chosen), dict(scores), problems, tuple(doubts), compared, tuple(apart))


def _doubts(source: Source, looks: Sequence[Look], apart: int) -> Iterator[str]:
    """Doubts about one source as a whole."""
    sides = [[hues for look in looks if (hues := getattr(look, side)) is not None] for side in ("he", "ihc")]
    for doubt in doubts_about_sides(*sides):
        yield f"{source.name}: {doubt}"
    if len(looks) >= 4 and apart > _APART * len(looks):
        yield (
            f"{source.name}: in {apart} of {len(looks)} pairs the two images do not seem to show the same tissue; "
            "check that equal names mean one place"
        )


def _without(source: Source, bad: set[int], report: CheckReport) -> Source:
    train = [example for example in source.train if id(example) not in bad]
    if not train:
        first = next(problem for problem in report.problems if problem.kind in LEFT_OUT)
        raise DataSetError(
            f"source {source.name!r} has no usable pair; the first, {first.name}: {first.kind}, {first.detail}"
        )
    return replace(source, train=train, validation=[example for example in source.validation if id(example) not in bad])


def look_at(example: Example, name: str, crop_px: int) -> Look:
    """The first fault of an example, if any, with its colours and its alignment."""
    try:
        he, ihc = example.read()
    except SizesDifferError as error:
        return Look(Problem("sizes differ", name, str(error)))
    except WsiIhcError as error:
        return Look(Problem("unreadable", name, str(error)))
    if he.shape != ihc.shape:
        return Look(Problem("sizes differ", name, f"H&E {_size(he)}, IHC {_size(ihc)}"))
    if min(he.shape[:2]) < crop_px:
        return Look(Problem("too small", name, f"{_size(he)}, the crop is {crop_px} px; set data.crop_px lower"))
    for side, image in (("H&E", he), ("IHC", ihc)):
        if float(optical_density(image[::4, ::4]).std()) < _BLANK_SPREAD:
            return Look(Problem("blank", name, f"the {side} image shows next to nothing"))
    if float(np.abs(he.astype(np.int16) - ihc).mean()) < _SAME_LEVELS:
        return Look(Problem("same image", name, "H&E and IHC are one image"), hues_of(he), hues_of(ihc))
    return Look(None, hues_of(he), hues_of(ihc), misalignment(he, ihc).doubtful)


def _size(image: Image) -> str:
    return f"{image.shape[1]} x {image.shape[0]} px"
