"""Tissue or glass, from the colours of a thumbnail.

What decides is not how dark a pixel is (pen, dust, coverslip edges and black borders are dark as well) nor a
threshold that splits this slide's histogram in two (a field without glass would be split in halves), but whether
glass of this slide's own colour has lost green light as tissue stains make it lose:

1. **Glass.** Its colour is that of the brightest large peak among smooth, bright, nearly neutral pixels
   (:func:`glass_colour`). A field without any is measured against white.
2. **Optical density** relative to that glass (Beer-Lambert), so that lamp, scanner and tint of the glass drop out.
3. **Stain signal**: density in green minus the smaller of red and blue. Hematoxylin, eosin and DAB all absorb green
   more than one of the other two (vectors of Ruifrok and Johnston, 2001); everything grey gives 0, and so do green
   ink and yellow mountant. It adds up along pale tissue, where brightness does not.
4. **Ink** is found by densities that no tissue stain has (:mod:`wsi_ihc.tissue.ink`) and taken out, with its halo.
5. **Hysteresis**: pixels above a low threshold are tissue where they are connected to pixels above a high one that
   lie away from ink: pale tissue joins its darker parts, noise and the fringes of pen strokes stay out.
   What is dark but hardly coloured (coverslip edges, fibres) is no tissue either.
6. **Ink over tissue** is tissue again: where a stroke up to ``max_stroke_um`` wide has tissue on both sides, and
   where it shows the fine texture of cells and is connected to tissue.
7. **Closing** joins the membranes of fat cells and the threads of loose tissue; pieces with less evidence than
   ``min_area_um2`` are dust; holes up to ``max_hole_um2`` (lumina of fat cells, glands, small vessels) and holes
   that are ink belong to the tissue.

The costs are unequal: a piece of glass that is stained costs time, a piece of tissue that is not may cost a diagnosis.
Thresholds are therefore set low.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.config import TissueSettings
from wsi_ihc.tissue.ink import find_ink, under_ink
from wsi_ihc.tissue.shapes import Mask, closed, dilated, enclosed, hysteresis, kept_pieces

DEFAULTS = TissueSettings()
WHITE = (245.0, 245.0, 245.0)
"""Glass of a field that shows none: what scanners set white to."""
LOW_SIGNAL = 0.02
"""Optical density. Bare glass has a standard deviation of 0.0015 to 0.006 in 26 pictures."""
HIGH_SIGNAL = 0.045
MIN_COLOUR_SHARE = 0.08
"""Of the signal in the density. Pale DAB on grey muscle has 0.10 to 0.17, a coverslip edge 0.025."""
MIN_PIECE_PX = 4
"""However coarse the thumbnail, less is noise."""


def tissue_from_thumbnail(rgb: NDArray[np.uint8], mpp: float, settings: TissueSettings = DEFAULTS) -> Mask:
    """(height, width) bool, True on tissue, from (height, width, 3) uint8 RGB at ``mpp`` um/px; without margin."""
    glass = glass_colour(rgb)
    red, green, blue = optical_density(rgb, WHITE if glass is None else glass)
    signal = np.asarray(cv2.GaussianBlur(green - np.minimum(red, blue), (3, 3), 0), np.float32)
    density = (red + green + blue) * np.float32(1 / 3)
    ink = find_ink(red, green, blue, mpp)
    near_ink, around_ink = dilated(ink, settings.ink_halo_um / mpp), dilated(ink, settings.ink_fringe_um / mpp)
    coloured = signal > np.maximum(LOW_SIGNAL, MIN_COLOUR_SHARE * density)
    evidence = hysteresis(coloured & ~near_ink, (signal > HIGH_SIGNAL) & ~around_ink)
    tissue = _with_inked(evidence, near_ink, under_ink(ink, density, mpp), mpp, settings) if ink.any() else evidence
    tissue = closed(tissue, settings.closing_um / mpp)
    tissue = without_dust(tissue, evidence, max(MIN_PIECE_PX, settings.min_area_um2 / mpp**2))
    return with_holes(tissue, near_ink, settings.max_hole_um2 / mpp**2)


def _with_inked(evidence: Mask, near_ink: Mask, textured: Mask, mpp: float, settings: TissueSettings) -> Mask:
    """``evidence`` and what ink hides of it."""
    between = closed(evidence, settings.max_stroke_um / 2 / mpp)
    return hysteresis(evidence | (near_ink & (textured | between)), evidence)


def without_dust(tissue: Mask, evidence: Mask, min_px: float) -> Mask:
    """The pieces with at least ``min_px`` of evidence: closing and ink gave them area that proves nothing."""
    return kept_pieces(tissue, lambda label, count: np.bincount(label[evidence], minlength=count) >= min_px)


def with_holes(tissue: Mask, ink: Mask, max_px: float) -> Mask:
    """``tissue`` and those of its holes that are at most ``max_px`` large, or ink for more than half."""

    def is_filled(label: NDArray[np.int32], count: int) -> NDArray[np.bool_]:
        area, inked = np.bincount(label.ravel(), minlength=count), np.bincount(label[ink], minlength=count)
        return (area <= max_px) | (inked > 0.5 * area)

    return tissue | kept_pieces(enclosed(tissue), is_filled)


def glass_colour(rgb: NDArray[np.uint8]) -> tuple[float, float, float] | None:
    """RGB of bare glass, or None when too little of the picture can be glass.

    Glass is smooth, bright, and may be grey, yellowish or bluish, but hardly ever magenta, which is what H&E makes
    of tissue. Pure white is what readers paint where nothing was scanned, and says nothing.
    """
    green = rgb[..., 1]
    darkest = rgb.min(axis=2)
    roughness = cv2.morphologyEx(green, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    magenta = (rgb[..., 0].astype(np.int16) + rgb[..., 2]) // 2 - green
    glassy = (darkest >= 170) & (darkest < 255) & (roughness <= 8) & (magenta <= 12)
    if glassy.sum() < max(20, 0.002 * green.size):
        return None
    histogram = np.convolve(np.bincount(green[glassy], minlength=256), np.ones(5), "same")
    # Pale tissue can have a larger peak than the glass between it, never a brighter one.
    brightest = int(np.flatnonzero(histogram >= 0.15 * histogram.max())[-1])
    start = max(0, brightest - 8)
    peak = start + int(np.argmax(histogram[start : brightest + 1]))
    near_peak = glassy & (np.abs(green.astype(np.int16) - peak) <= 6)
    red, middle, blue = np.median(rgb[near_peak], axis=0)
    return float(red), float(middle), float(blue)


def optical_density(rgb: NDArray[np.uint8], glass: tuple[float, float, float]) -> list[NDArray[np.float32]]:
    """Density of red, green and blue, each (height, width), relative to ``glass``; nothing is brighter than glass."""
    values = np.arange(1, 257)
    tables = [np.maximum(0, np.log((white + 1) / values)).astype(np.float32) for white in glass]
    return [table[rgb[..., channel]] for channel, table in enumerate(tables)]
