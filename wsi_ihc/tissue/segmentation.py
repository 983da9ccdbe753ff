"""Tissue or glass, from the colours of a thumbnail.

What decides is not how dark a pixel is (pen, dust, coverslip edges and black borders are dark as well) nor a
threshold that splits this slide's histogram in two (a field without glass would be split in halves), but whether
glass of this slide's own colour has lost green light as tissue stains make it lose:

1. **Glass.** Its colour is that of the brightest large peak among smooth, bright, nearly neutral pixels
   (:func:`glass_colour`). A field without any is measured against white.
2. **Optical density** relative to that glass (Beer-Lambert), so that lamp, scanner and tint of the glass drop out.
3. **Stain signal**: density in green minus the smaller of red and blue. Haematoxylin, eosin and DAB all absorb green
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

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.config import TissueSettings
from wsi_ihc.measures.density import density_table
from wsi_ihc.tissue.bands import bands
from wsi_ihc.tissue.ink import Sign, find_ink, ink_signs, under_ink
from wsi_ihc.tissue.shapes import Mask, closed, dilated, enclosed, hysteresis, kept_pieces, pixel_counts

DEFAULTS = TissueSettings()
ASSUMED_GLASS = (245.0, 245.0, 245.0)
"""RGB of the glass of a field that shows none: what scanners set white to."""
LOW_SIGNAL = 0.02
"""Optical density. Bare glass has a standard deviation of 0.0015 to 0.006 in 26 pictures."""
HIGH_SIGNAL = 0.045
MIN_COLOUR_SHARE = 0.08
"""Of the signal in the density. Pale DAB on grey muscle has 0.10 to 0.17, a coverslip edge 0.025."""
MIN_PIECE_PX = 4
"""However coarse the thumbnail, less is noise."""


def tissue_from_thumbnail(rgb: NDArray[np.uint8], mpp: float, settings: TissueSettings = DEFAULTS) -> Mask:
    """(height, width) bool, True on tissue, from (height, width, 3) uint8 RGB at ``mpp`` um/px; without margin.

    Memory bound: some 12 bytes a pixel beside ``rgb``, 15 where there is ink; densities are never held for the whole
    picture unless there is ink on it.
    """
    glass = glass_colour(rgb) or ASSUMED_GLASS
    signs = _signs(rgb, glass)
    ink = find_ink(signs, mpp)
    textured = under_ink(ink, _mean_density(optical_density(rgb, glass)), mpp) if ink.any() else None
    # The picture itself is not needed any more, and it is the largest array here.
    del rgb
    near_ink, around_ink = dilated(ink, settings.ink_halo_um / mpp), dilated(ink, settings.ink_fringe_um / mpp)
    coloured, strong = (signs & Sign.COLOURED > 0) & ~near_ink, (signs & Sign.STRONG > 0) & ~around_ink
    del signs, around_ink
    evidence = hysteresis(coloured, strong)
    del coloured, strong
    tissue = evidence if textured is None else _with_inked(evidence, near_ink, textured, mpp, settings)
    tissue = closed(tissue, settings.closing_um / mpp)
    tissue = without_dust(tissue, evidence, max(MIN_PIECE_PX, settings.min_area_um2 / mpp**2))
    return with_holes(tissue, near_ink, settings.max_hole_um2 / mpp**2)


def _signs(rgb: NDArray[np.uint8], glass: tuple[float, float, float]) -> NDArray[np.uint8]:
    """What each pixel and its neighbours say: a sum of ``Sign``, (height, width).

    Computed in bands of rows, so that no density of the whole picture is ever in memory.
    """
    signs = np.empty(rgb.shape[:2], np.uint8)
    for band in bands(rgb.shape[0]):
        red, green, blue = optical_density(rgb[band.seen], glass)
        signal = np.asarray(cv2.GaussianBlur(green - np.minimum(red, blue), (3, 3), 0), np.float32)
        threshold = np.maximum(LOW_SIGNAL, MIN_COLOUR_SHARE * _mean_density((red, green, blue)))
        found = ink_signs(red, green, blue)
        found |= (signal > threshold) * np.uint8(Sign.COLOURED) | (signal > HIGH_SIGNAL) * np.uint8(Sign.STRONG)
        signs[band.rows] = found[band.own]
    return signs


def _with_inked(evidence: Mask, near_ink: Mask, textured: Mask, mpp: float, settings: TissueSettings) -> Mask:
    """``evidence`` and what ink hides of it."""
    between = closed(evidence, settings.max_stroke_um / 2 / mpp)
    return hysteresis(evidence | (near_ink & (textured | between)), evidence)


def without_dust(tissue: Mask, evidence: Mask, min_px: float) -> Mask:
    """The pieces with at least ``min_px`` of evidence: closing and ink gave them area that proves nothing."""
    return kept_pieces(tissue, lambda label, count: pixel_counts(label, count, evidence) >= min_px)


def with_holes(tissue: Mask, ink: Mask, max_px: float) -> Mask:
    """``tissue`` and those of its holes that are at most ``max_px`` large, or ink for more than half."""

    def is_filled(label: NDArray[np.int32], count: int) -> NDArray[np.bool_]:
        area, inked = pixel_counts(label, count), pixel_counts(label, count, ink)
        return (area <= max_px) | (inked > 0.5 * area)

    return tissue | kept_pieces(enclosed(tissue), is_filled)


def glass_colour(rgb: NDArray[np.uint8]) -> tuple[float, float, float] | None:
    """RGB of bare glass, or None when too little of the picture can be glass.

    Glass is smooth, bright, and may be grey, yellowish or bluish, but hardly ever magenta, which is what H&E makes
    of tissue. Pure white is what readers paint where nothing was scanned, and says nothing.
    """
    histogram = np.zeros(256, np.int64)
    for glassy, pixels in _glassy_bands(rgb):
        histogram += np.bincount(pixels[..., 1][glassy], minlength=256)
    if histogram.sum() < max(20, 0.002 * rgb[..., 1].size):
        return None
    smooth = np.convolve(histogram, np.ones(5), "same")
    # Pale tissue can have a larger peak than the glass between it, never a brighter one.
    brightest = int(np.flatnonzero(smooth >= 0.15 * smooth.max())[-1])
    start = max(0, brightest - 8)
    peak = start + int(np.argmax(smooth[start : brightest + 1]))
    counts = np.zeros((3, 256), np.int64)
    for glassy, pixels in _glassy_bands(rgb):
        near_peak = pixels[glassy & (np.abs(pixels[..., 1].astype(np.int16) - peak) <= 6)]
        counts += [np.bincount(near_peak[:, channel], minlength=256) for channel in range(3)]
    red, green, blue = (_median(count) for count in counts)
    return red, green, blue


def _glassy_bands(rgb: NDArray[np.uint8]) -> Iterator[tuple[Mask, NDArray[np.uint8]]]:
    """Bands of rows, and which of their pixels may be glass."""
    for band in bands(rgb.shape[0]):
        roughness = cv2.morphologyEx(rgb[band.seen][..., 1], cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))[band.own]
        pixels = rgb[band.rows]
        darkest = pixels.min(axis=2)
        magenta = (pixels[..., 0].astype(np.int16) + pixels[..., 2]) // 2 - pixels[..., 1]
        yield (darkest >= 170) & (darkest < 255) & (roughness <= 8) & (magenta <= 12), pixels


def _median(counts: NDArray[np.int64]) -> float:
    """The median of a histogram's values, the mean of the middle two where they differ."""
    reached, total = np.cumsum(counts), int(counts.sum())
    low, high = (int(np.searchsorted(reached, rank, side="right")) for rank in ((total - 1) // 2, total // 2))
    return (low + high) / 2


def _mean_density(densities: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    red, green, blue = densities
    return (red + green + blue) * np.float32(1 / 3)


def optical_density(rgb: NDArray[np.uint8], glass: tuple[float, float, float]) -> list[NDArray[np.float32]]:
    """Density of red, green and blue, each (height, width), relative to ``glass``; nothing is brighter than glass."""
    tables = [np.maximum(density_table(white), 0) for white in glass]
    return [table[rgb[..., channel]] for channel, table in enumerate(tables)]
