"""Does each level show what the finer one shows? Asked at a few places with structure, when a slide is opened.

A reduced level can be padded (its pixels are then larger than its size says), shifted, of another scene, black, or
lack tiles that were never written. Its size tells none of that, its content does: a patch of the level is laid on the
same place of the next finer level, reduced by area to the same scale, and both must correlate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.errors import SlideError
from wsi_ihc.machine.processors import processors
from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.slides.levels import Level, cropped, possible_downsamples, stated_downsample
from wsi_ihc.slides.reader import SlideReader
from wsi_ihc.slides.resample import reduce, source_span

PATCH_PX = 96
"""Side of a patch in pixels of the level."""
SMALLEST_PX = 24
"""A level with a shorter side is not looked at: a picture of so few pixels correlates with anything."""
LARGEST_FACTOR = 32
"""Between two levels. Beyond it a patch of the coarser one is too much of the finer one to be read."""
GRID, FINE_GRID = 4, 6
"""Patches of the finer level along each side that are looked at for structure, with an overview and without."""
OVERVIEW_PX = 1_500_000
"""A level of at most so many pixels is read whole to find places with structure."""
PLACES = 6
"""Places with the most structure, of the overview and of the grid, at which levels are compared."""
SEARCH_PX = 12
"""So far around its place a patch is looked for."""
SLACK_PX = 3
"""Levels may be this much out of place: filters differ in where they centre a pixel."""
STRUCTURE = 6.0
"""Standard deviation, grey levels, of smoothed pixels from which a patch says anything."""
FLAT = 1.5
"""A patch below this shows nothing."""
AGREES = 0.75
"""Correlation of fine detail. Levels by area have 0.99 and more, every 16th pixel 0.9, another place below 0.3."""
CLEARLY = 0.02
"""Another place must correlate better by this to be the true one, and another scale to be taken."""
OTHER_COLOUR = 10.0
"""Difference of mean colours, grey levels, when brightness is left out: red and blue changed places."""


_Place = tuple[float, float]
"""Row and column as shares of a plane's height and width."""


@dataclass(frozen=True)
class Finding:
    """What was found out about one level: its true scale, or why it is not used."""

    level: Level
    fault: str | None = None
    hole: Region | None = None
    """A place of the level at which it has structure and the finer level, which is believed, has none."""


def inspect_levels(slide: SlideReader, again: Callable[[], SlideReader]) -> tuple[SlideReader, tuple[Finding, ...]]:
    """A finding for every level of ``slide``, and the slide, opened ``again`` where a read failed.

    OpenSlide answers nothing more after one failure.
    """
    findings = [Finding(slide.levels[0])]
    overview = _overview_places(slide)
    finer = 0
    for index in range(1, len(slide.levels)):
        comparison = _Comparison(slide, finer, index)
        finding = comparison.finding(findings[finer].level, overview)
        if comparison.failed:
            slide.close()
            slide = again()
        findings.append(finding)
        finer = finer if finding.fault else index
    return slide, tuple(findings)


@dataclass(frozen=True)
class _Match:
    """How one place of a level compares with the finer level."""

    place: Region
    correlation: float
    missing: bool = False
    """The finer level shows structure, this one nothing."""
    hole: bool = False
    """This level shows structure, the finer one nothing."""
    moved: bool = False
    """The content is found more than ``SLACK_PX`` away."""
    colour: float = 0.0
    """Difference of colour, grey levels."""


class _Comparison:
    """One level held against the next finer one that is believed."""

    def __init__(self, slide: SlideReader, finer: int, index: int) -> None:
        self._slide, self._finer, self._index = slide, finer, index
        self.failed = False
        """Whether a read failed."""

    def finding(self, finer: Level, overview: Sequence[_Place]) -> Finding:
        """Whether the level can be used, and at which scale; ``overview`` are places that may have structure."""
        level, base = self._slide.levels[self._index], self._slide.levels[0]
        stated = stated_downsample(base, level)
        scales = [*([stated] if stated else []), level.downsample, *possible_downsamples(base.size, level)]
        if min(level.size) < SMALLEST_PX or level.downsample > LARGEST_FACTOR * finer.downsample:
            return Finding(_at_scale(level, base, scales[0]))
        try:
            places = self._places(level, level.downsample / finer.downsample, overview)
            tried = [(scale, self._matches(places, scale / finer.downsample)) for scale in scales]
        except SlideError as error:
            self.failed = True
            return Finding(level, str(error).removeprefix(f"{self._slide.path}: "))
        scale, matches = _best(tried)
        true = _at_scale(level, base, scale)
        fault = _fault(matches, true, base.size)
        hole = next((match.place for match in matches if match.hole and not fault), None)
        return Finding(true, fault, hole)

    def _places(self, level: Level, factor: float, overview: Sequence[_Place]) -> list[Region]:
        """Where the overview or the finer level has structure."""
        if max(level.size) <= PATCH_PX:
            return [Region(0, 0, *level.size)]
        grid = _grid(level.size, GRID if overview else FINE_GRID)
        with ThreadPoolExecutor(min(4, processors())) as pool:
            values = list(pool.map(lambda place: self._structure_below(place, factor), grid))
        ranked = sorted(zip(values, grid, strict=True), key=lambda pair: -pair[0])
        of_grid = [place for value, place in ranked[:PLACES] if value > STRUCTURE]
        return [*(_around(place, level.size) for place in overview), *of_grid]

    def _structure_below(self, place: Region, factor: float) -> float:
        """Structure of the finer level in the middle of ``place``."""
        top, left = round((place.top + place.height / 2) * factor), round((place.left + place.width / 2) * factor)
        middle = Region(top - PATCH_PX // 2, left - PATCH_PX // 2, PATCH_PX, PATCH_PX)
        try:
            return _structure(_smooth(self._slide.read(middle, self._finer)))
        except SlideError:
            self.failed = True
            return 0.0

    def _matches(self, places: Sequence[Region], factor: float) -> list[_Match]:
        with ThreadPoolExecutor(min(4, processors())) as pool:
            found = pool.map(lambda place: self._match(place, factor), places)
            return [match for match in found if match]

    def _match(self, place: Region, factor: float) -> _Match | None:
        """None where neither level shows structure, or the finer one cannot be read."""
        (top, height), (left, width) = (
            source_span(place.top, place.height, factor),
            source_span(place.left, place.width, factor),
        )
        try:
            below = self._slide.read(Region(top, left, height, width), self._finer)
        except SlideError:
            self.failed = True
            return None
        return _compared(place, self._slide.read(place, self._index), _reduced(below, place, factor))


def _reduced(pixels: NDArray[np.uint8], place: Region, factor: float) -> NDArray[np.uint8]:
    """The finer pixels of ``place``; means of whole pixels need no exact weights."""
    if factor.is_integer():
        return cv2.resize(pixels, place.size[::-1], interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return reduce(pixels, place, factor)


def _compared(place: Region, shown: NDArray[np.uint8], expected: NDArray[np.uint8]) -> _Match | None:
    one, other = _smooth(shown), _smooth(expected)
    structure, reference = _structure(one), _structure(other)
    if max(structure, reference) < STRUCTURE:
        return None
    if min(structure, reference) < FLAT:
        return _Match(place, 0.0, missing=structure < FLAT, hole=reference < FLAT)
    # Fine detail only: the outline of a piece of tissue correlates with that of any other.
    one, other = _detail(one), _detail(other)
    inner = one[SEARCH_PX:-SEARCH_PX, SEARCH_PX:-SEARCH_PX]
    if min(inner.shape) < SMALLEST_PX // 2 or _structure(inner) < FLAT:
        return None
    around = cv2.matchTemplate(other, inner, cv2.TM_CCOEFF_NORMED)
    middle = slice(SEARCH_PX - SLACK_PX, SEARCH_PX + SLACK_PX + 1)
    here = float(around[middle, middle].max())
    return _Match(place, here, moved=bool(around.max() > here + CLEARLY), colour=_colour_difference(shown, expected))


def _colour_difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """The largest difference of a channel's mean, once both are equally bright."""
    difference = np.array(cv2.mean(one)[:3]) - np.array(cv2.mean(other)[:3])
    return float(np.abs(difference - difference.mean()).max())


def _at_scale(level: Level, base: Level, downsample: float) -> Level:
    """The level at its true scale, without its padding."""
    if downsample == level.downsample:
        return level
    return replace(level, size=cropped(base.size, level.size, downsample), downsample=downsample)


def _best(tried: Sequence[tuple[float, list[_Match]]]) -> tuple[float, list[_Match]]:
    """The scale that correlates best; the first unless another is clearly better."""
    return max(tried, key=lambda one: _mean(one[1]) + (CLEARLY if one is tried[0] else 0.0))


def _mean(matches: Sequence[_Match]) -> float:
    return float(np.mean([match.correlation for match in matches])) if matches else 0.0


def _fault(matches: Sequence[_Match], level: Level, base: Size) -> str | None:
    """Why the level is not used, or None."""
    if any(side < whole / level.downsample - 2 for side, whole in zip(level.size, base, strict=True)):
        return "it does not show all of the slide"
    shown = [match for match in matches if not match.hole]
    if not matches:
        return None
    if not shown or median(match.correlation for match in shown) < AGREES:
        return "it shows something else than the finer level"
    if sum(match.moved for match in shown) > len(shown) / 2:
        return "what it shows is shifted against the finer level"
    if median(match.colour for match in shown) > OTHER_COLOUR:
        return "its colours are not those of the finer level"
    if missing := [match.place for match in shown if match.missing]:
        return f"parts of it are missing, as near x {missing[0].left}, y {missing[0].top} of it"
    return None


def _grid(size: Size, count: int) -> list[Region]:
    """``count`` x ``count`` patches, the last ones at the right and bottom edge."""
    sides = Size(min(PATCH_PX, size.height), min(PATCH_PX, size.width))
    tops = np.unique(np.linspace(0, size.height - sides.height, count).astype(int))
    lefts = np.unique(np.linspace(0, size.width - sides.width, count).astype(int))
    return [Region(int(top), int(left), *sides) for top in tops for left in lefts]


def _overview_places(slide: SlideReader) -> list[_Place]:
    """Places with structure all over a small level of the slide, the one from each cell of a grid with the most.

    Whether that level is sound is not known yet: where it is not, they are places like others.
    """
    sizes = [(index, level.size) for index, level in enumerate(slide.levels) if min(level.size) >= SMALLEST_PX]
    index, size = sizes[-1] if sizes else (0, slide.levels[0].size)
    if size.height * size.width > OVERVIEW_PX:
        return []
    try:
        grey = _smooth(slide.read(Region(0, 0, *size), index))
    except SlideError:
        return []
    detail = np.asarray(cv2.GaussianBlur(np.abs(_detail(grey)), (0, 0), 6), np.float32)
    cells = [(rows, columns) for rows in _thirds(size.height) for columns in _thirds(size.width)]
    peaks = [cv2.minMaxLoc(detail[rows, columns]) for rows, columns in cells]
    ranked = sorted(zip(peaks, cells, strict=True), key=lambda pair: -pair[0][1])
    return [
        ((rows.start + peak[3][1]) / size.height, (columns.start + peak[3][0]) / size.width)
        for peak, (rows, columns) in ranked[:PLACES]
    ]


def _thirds(side: int) -> list[slice]:
    edges = [side * part // 3 for part in range(4)]
    return [slice(start, stop) for start, stop in pairwise(edges) if stop > start]


def _around(place: _Place, size: Size) -> Region:
    """A patch with a place in its middle, moved inside the level."""
    height, width = min(PATCH_PX, size.height), min(PATCH_PX, size.width)
    top = min(max(0, round(place[0] * size.height) - height // 2), size.height - height)
    return Region(top, min(max(0, round(place[1] * size.width) - width // 2), size.width - width), height, width)


def _smooth(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Grey, without what filters and JPEG do to single pixels."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(grey, (0, 0), 1.5), np.float32)


def _detail(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """What differs from its surroundings."""
    return np.asarray(grey - cv2.GaussianBlur(grey, (0, 0), 4), np.float32)


def _structure(grey: NDArray[np.float32]) -> float:
    """Standard deviation, grey levels."""
    return float(cv2.meanStdDev(grey)[1][0, 0])
