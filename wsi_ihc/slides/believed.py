"""A slide with only its sound levels: those that show the same tissue, at the scale that their pixels prove."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.pyramid.geometry import Region
from wsi_ihc.slides.assembly import padded
from wsi_ihc.slides.level_check import Finding, inspect_levels
from wsi_ihc.slides.reader import SlideReader


class BelievedLevels:
    """``slide`` without its faulty levels; the other levels are cropped to the part that shows the slide."""

    def __init__(self, slide: SlideReader, findings: tuple[Finding, ...]) -> None:
        self._slide = slide
        self._indices = [index for index, finding in enumerate(findings) if not finding.fault]
        self.path: Path | None = slide.path
        self.name = slide.name
        self.levels = tuple(findings[index].level for index in self._indices)
        self.mpp = slide.mpp
        self.contents = slide.contents
        self.properties: Mapping[str, str] = slide.properties
        self.notices = (*slide.notices, *_notices(slide, findings))

    def read(self, region: Region, level: int = 0) -> NDArray[np.uint8]:
        index = self._indices[level]
        return padded(region, self.levels[level].size, lambda inside: self._slide.read(inside, index))

    def close(self) -> None:
        self._slide.close()


def believed(slide: SlideReader, again: Callable[[], SlideReader]) -> SlideReader:
    """``slide`` itself where all its levels are sound; else the slide without the faulty ones, and with notices.

    ``again`` opens the slide once more, because some readers answer nothing after a failure.
    """
    if len(slide.levels) == 1:
        return slide
    slide, findings = inspect_levels(slide, again)
    sound = tuple(Finding(level) for level in slide.levels)
    return slide if findings == sound else BelievedLevels(slide, findings)


def _notices(slide: SlideReader, findings: tuple[Finding, ...]) -> list[str]:
    notices = []
    for index, (finding, level) in enumerate(zip(findings, slide.levels, strict=True)):
        if finding.fault:
            notices.append(f"level {index} of the file is not used: {finding.fault}")
        elif finding.level.downsample != level.downsample:
            notices.append(
                f"level {index} is padded: its scale is 1/{finding.level.downsample:.6g}, "
                f"not 1/{level.downsample:.6g} as its size says"
            )
        if finding.hole:
            left, top = (round(side * finding.level.downsample) for side in (finding.hole.left, finding.hole.top))
            notices.append(f"pixels are missing near x {left}, y {top} of level 0: level {index} shows something there")
    return notices
