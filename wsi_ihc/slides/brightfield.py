"""Whether a slide is brightfield and looks like H&E, judged once from sample pixels all over the slide."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.errors import UnsupportedSlideError
from wsi_ihc.machine.processors import processors
from wsi_ihc.measures.density import DECADIC, density_table
from wsi_ihc.pyramid.geometry import Region
from wsi_ihc.slides.notices import Notice
from wsi_ihc.slides.reader import OWN_VENDOR, SlideReader

LOOK_PX = 1024
"""The coarsest level whose longer side has at least this many pixels is sampled."""
WHOLE_PX = 4_000_000
"""A level with more pixels is sampled in patches."""
PATCHES, PATCH_PX = 12, 256
"""Number of patches along each side, and the side of a patch in pixels."""
ENOUGH_PX = 256
"""Fewer coloured pixels say nothing about a stain."""


def check_brightfield(slide: SlideReader, *, any_stain: bool = False) -> tuple[Notice, ...]:
    """Refuses a slide that shows strong evidence of not being H&E; notices for weaker evidence.

    ``any_stain`` turns the refusal into a notice. Thresholds were set on H&E and IHC fields of a dozen laboratories:
    at most 0.3 % of the tissue is brown in H&E, pens included, and 4 % and more in DAB with haematoxylin; above 50 %
    of it is pinkish in H&E without ink, and below 20 % in weak DAB. Pigment and old blood are brown too, but lie in
    pink tissue: brown alone is evidence only where it covers most of the tissue.

    Raises:
        UnsupportedSlideError: a dark background, no colour at all, DAB, or an output of wsi-ihc.
        UnreadableSlideError: the slide is damaged.
    """
    pixels = _look(slide)
    own = slide.properties.get("vendor") == OWN_VENDOR
    evidence = "a virtual stain, an output of wsi-ihc" if own else _strong_evidence(pixels)
    if evidence and not any_stain:
        raise UnsupportedSlideError(
            f"{slide.path or slide.name}: H&E in brightfield RGB expected, found {evidence}; check the slide, or "
            "convert it all the same with --any-stain"
        )
    doubt = f"H&E is expected, but the slide shows {evidence}" if evidence else _weak_evidence(pixels)
    return (Notice("stain", doubt),) if doubt else ()


def _strong_evidence(pixels: NDArray[np.uint8]) -> str:
    """Names the stain or image that the slide shows instead of H&E; empty when it may be H&E."""
    darkest, brightest = pixels.min(axis=1), pixels.max(axis=1)
    if np.mean(brightest < 50) > 0.4 and np.mean(darkest > 140) < 0.05:
        return "a dark background, as in fluorescence or an inverted image"
    content = darkest < 230
    if np.count_nonzero(content) >= ENOUGH_PX and np.quantile((brightest - darkest)[content], 0.999) <= 4:
        return "shades of grey"
    brown, pink = _brown_and_pink(pixels)
    if brown > 0.6 or (brown > 0.04 and pink < 0.5):
        return f"an IHC (DAB) stain, brown in {brown:.0%} of the tissue"
    return ""


def _weak_evidence(pixels: NDArray[np.uint8]) -> str:
    """A reason to doubt that this is H&E, without proof of another stain; empty when there is none."""
    brown, pink = _brown_and_pink(pixels)
    if brown > 0.05:
        return f"H&E is expected, but {brown:.0%} of the tissue is brown: this may be an IHC (DAB) slide"
    if pink < 0.4:
        return f"only {pink:.0%} of the tissue is pink or purple: this does not look like H&E"
    return ""


def _brown_and_pink(pixels: NDArray[np.uint8]) -> tuple[float, float]:
    """Shares of the tissue; 0 and 1 where there is too little of it.

    Optical densities: haematoxylin absorbs most in red, eosin in green, DAB in blue.
    """
    red, green, blue = density_table(base=DECADIC)[pixels.T]
    density = red + green + blue
    tissue = (density > 0.4) & (density < 3.5)
    count = np.count_nonzero(tissue)
    if count < ENOUGH_PX:
        return 0.0, 1.0
    brown = np.count_nonzero(tissue & (blue > 1.1 * green) & (blue > 1.25 * red)) / count
    return brown, np.count_nonzero(tissue & (green > 1.1 * red)) / count


def _look(slide: SlideReader) -> NDArray[np.uint8]:
    """(n, 3) sample pixels: all of a small level, or patches of a large one."""
    level = max(index for index, level in enumerate(slide.levels) if index == 0 or max(level.size) >= LOOK_PX)
    size = slide.levels[level].size
    if size.height * size.width <= WHOLE_PX:
        regions = [Region(0, 0, *size)]
    else:
        tops = np.linspace(0, size.height - PATCH_PX, PATCHES).astype(int).clip(0)
        lefts = np.linspace(0, size.width - PATCH_PX, PATCHES).astype(int).clip(0)
        sides = min(PATCH_PX, size.height), min(PATCH_PX, size.width)
        regions = [Region(int(top), int(left), *sides) for top in tops for left in lefts]
    with ThreadPoolExecutor(min(8, processors())) as pool:
        return np.concatenate(list(pool.map(lambda region: _reduced(slide.read(region, level)), regions)))


def _reduced(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(n, 3) pixels, averaged over areas so that noise and JPEG blocks disappear."""
    height, width = (max(1, min(side, LOOK_PX, side // 4 if side > 128 else side)) for side in pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA).reshape(-1, 3).astype(np.uint8, copy=False)
