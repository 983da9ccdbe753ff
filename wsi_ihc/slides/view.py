"""A slide at one working resolution: the only place where levels become working pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.errors import ResolutionError
from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.slides.assembly import padded
from wsi_ihc.slides.reader import SlideReader
from wsi_ihc.slides.resample import reduced_from


@dataclass(frozen=True, slots=True)
class SlideView:
    """One plane of working pixels over a slide.

    Memory bound of a read: the result, and about 50 MB where it resamples, for any region and any number of levels.
    """

    slide: SlideReader
    size: Size
    """Size of the plane, without the working pixels at the right and bottom edge that the slide covers only in part."""
    mpp: float | None
    """Micrometres per working pixel; None only for an unresampled level 0 whose pixel size is unknown."""
    scale: float
    """Level 0 pixels per working pixel, in both axes."""
    level: int
    """Level of the slide that is read."""
    resampled: bool
    """Whether the pixels are reduced by area; else they are those of the level, unchanged."""

    @classmethod
    def at(cls, slide: SlideReader, mpp: float | None, *, tolerance: float = 0.10) -> SlideView:
        """The plane of ``slide`` at ``mpp`` um/px, or its level 0 for None.

        A level within ``tolerance`` (relative) of ``mpp`` is used unchanged, and the view has the ``mpp`` of that
        level. Otherwise the next finer level is reduced by area to exactly ``mpp``.

        Raises:
            ResolutionError: the pixel size of the slide is unknown, or the slide is too coarse.
        """
        if mpp is None:
            return cls(slide, slide.levels[0].size, slide.mpp, 1.0, 0, False)
        if slide.mpp is None:
            raise ResolutionError(
                f"{_name(slide)}: {mpp:g} um/px wanted, but the pixel size of the slide is not known"
                f"{_because(slide)}; give it with --mpp, for example --mpp 0.25 for a 40x scan or 0.5 for 20x"
            )
        offered = [slide.mpp * level.downsample for level in slide.levels]
        nearest = min(range(len(offered)), key=lambda level: abs(offered[level] / mpp - 1))
        if abs(offered[nearest] / mpp - 1) <= tolerance:
            chosen = slide.levels[nearest]
            return cls(slide, chosen.size, offered[nearest], chosen.downsample, nearest, False)
        if offered[0] > mpp:
            raise ResolutionError(
                f"{_name(slide)}: scanned at {offered[0]:.3g} um/px, too coarse for the {mpp:.3g} um/px wanted; "
                "scan it finer, or choose a generator trained at this resolution"
            )
        return cls._resampling(slide, mpp, mpp / slide.mpp)

    @classmethod
    def reduced(cls, slide: SlideReader, scale: float) -> SlideView:
        """The plane of ``slide`` at ``scale`` level 0 pixels per working pixel, at least 1, for any pixel size."""
        return cls._resampling(slide, slide.mpp * scale if slide.mpp else None, scale)

    @classmethod
    def _resampling(cls, slide: SlideReader, mpp: float | None, scale: float) -> SlideView:
        """The plane that is reduced from the coarsest level with a downsample of at most ``scale``."""
        finer = max(index for index, level in enumerate(slide.levels) if level.downsample <= scale)
        source = slide.levels[finer]
        factor = scale / source.downsample
        size = Size(max(1, int(source.size.height / factor)), max(1, int(source.size.width / factor)))
        return cls(slide, size, mpp, scale, finer, True)

    def read(self, region: Region) -> NDArray[np.uint8]:
        """(height, width, 3) RGB of ``region`` in working pixels; white outside the plane. Thread-safe.

        A pixel has the same value, bit for bit, in every region that contains it.

        Raises:
            UnreadableSlideError: the pixels are damaged; it names file and place.
        """
        return padded(region, self.size, self._resampled if self.resampled else self._as_it_is)

    def _as_it_is(self, region: Region) -> NDArray[np.uint8]:
        return self.slide.read(region, self.level)

    def _resampled(self, region: Region) -> NDArray[np.uint8]:
        factor = self.scale / self.slide.levels[self.level].downsample
        return reduced_from(partial(self.slide.read, level=self.level), region, factor)


def _name(slide: SlideReader) -> str:
    return str(slide.path) if slide.path else f"slide in {slide.name}"


def _because(slide: SlideReader) -> str:
    """The notice about a pixel size that is not used, in parentheses; empty where there is none."""
    reasons = [notice for notice in slide.notices if "pixel size" in notice]
    return f" ({reasons[0]})" if reasons else ""
