"""Tissue or glass, from the colours of a thumbnail.

Darkness does not decide: pen, dust, coverslip edges and black borders are dark as well. Nor does a threshold that
splits the histogram of the slide in two: it would split a field without glass. A pixel is tissue where it absorbs
green light, relative to the glass of this slide, as the stains of tissue do:

1. **Glass.** Its colour is that of the brightest large peak among smooth, bright, nearly neutral pixels
   (:func:`glass_colour`). A field without any is measured against white.
2. **Optical density** relative to that glass (Beer-Lambert): lamp, scanner and tint of the glass do not matter.
3. **Stain signal**: density in green minus the smaller of red and blue. Haematoxylin, eosin and DAB all absorb green
   more than red or more than blue (vectors of Ruifrok and Johnston, 2001). Grey gives 0, and so do green ink and
   yellow mountant. Pale tissue has a signal where its brightness hardly differs from that of glass.
4. **Ink** has densities that no tissue stain has (:mod:`wsi_ihc.tissue.ink`); it is removed with its halo.
5. **Hysteresis**: pixels above a low threshold are tissue where they are connected to pixels above a high threshold
   that lie away from ink. So pale tissue joins its darker parts, and noise and the fringes of pen strokes stay out.
   Dark pixels with hardly any colour (coverslip edges, fibres) are not tissue.
6. **Ink over tissue** is tissue where a stroke of at most ``max_stroke_um`` has tissue on both sides, and where it
   shows the fine texture of cells and is connected to tissue.
7. **Closing** joins the membranes of adipocytes and the threads of loose tissue. Pieces with less evidence than
   ``min_area_um2`` are dust. Holes up to ``max_hole_um2`` (adipocytes, lumina of glands and small vessels) and holes
   that are ink belong to the tissue.

The two errors are not equal: stained glass costs time, but tissue that is not stained may cost a diagnosis. So the
thresholds are low.
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
"""RGB of the glass for a field that shows no glass: the white of usual scanners."""
LOW_SIGNAL = 0.02
"""Optical density. Bare glass has a standard deviation of 0.0015 to 0.006 in 26 pictures."""
HIGH_SIGNAL = 0.045
MIN_COLOUR_SHARE = 0.08
"""Least share of the stain signal in the mean density. Pale DAB on grey muscle has 0.10 to 0.17, a coverslip edge
0.025."""
MIN_PIECE_PX = 4
"""Fewer pixels are noise, at any resolution of the thumbnail."""


def tissue_from_thumbnail(rgb: NDArray[np.uint8], mpp: float, settings: TissueSettings = DEFAULTS) -> Mask:
    """(height, width) bool, True on tissue, from (height, width, 3) uint8 RGB at ``mpp`` um/px; without margin.

    Memory bound: some 12 bytes per pixel beside ``rgb``, 15 where there is ink. The densities of the whole picture
    are in memory only where there is ink.
    """
    glass = glass_colour(rgb) or ASSUMED_GLASS
    signs = _signs(rgb, glass)
    ink = find_ink(signs, mpp)
    textured = under_ink(ink, _mean_density(optical_density(rgb, glass)), mpp) if ink.any() else None
    # The picture is the largest array here, and is not needed any more.
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
    """Evidence in each pixel and its neighbours: a sum of ``Sign``, (height, width) uint8.

    Computed in bands of rows, so that the densities of the whole picture are never in memory.
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
    """``evidence`` and the tissue that ink hides."""
    between = closed(evidence, settings.max_stroke_um / 2 / mpp)
    return hysteresis(evidence | (near_ink & (textured | between)), evidence)


def without_dust(tissue: Mask, evidence: Mask, min_px: float) -> Mask:
    """The pieces with at least ``min_px`` of evidence; area that closing and ink added does not count."""
    return kept_pieces(tissue, lambda label, count: pixel_counts(label, count, evidence) >= min_px)


def with_holes(tissue: Mask, ink: Mask, max_px: float) -> Mask:
    """``tissue`` with these holes filled: at most ``max_px`` pixels large, or more than half ink."""

    def is_filled(label: NDArray[np.int32], count: int) -> NDArray[np.bool_]:
        area, inked = pixel_counts(label, count), pixel_counts(label, count, ink)
        return (area <= max_px) | (inked > 0.5 * area)

    return tissue | kept_pieces(enclosed(tissue), is_filled)


def glass_colour(rgb: NDArray[np.uint8]) -> tuple[float, float, float] | None:
    """RGB of bare glass; None where too few pixels can be glass.

    Glass is smooth and bright. It may be grey, yellowish or bluish, but is hardly ever magenta, the colour of tissue
    in H&E. Pure white is left out: readers use it where nothing was scanned.
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
    """For each band of rows: the mask of pixels that may be glass, and the pixels."""
    for band in bands(rgb.shape[0]):
        roughness = cv2.morphologyEx(rgb[band.seen][..., 1], cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))[band.own]
        pixels = rgb[band.rows]
        darkest = pixels.min(axis=2)
        magenta = (pixels[..., 0].astype(np.int16) + pixels[..., 2]) // 2 - pixels[..., 1]
        yield (darkest >= 170) & (darkest < 255) & (roughness <= 8) & (magenta <= 12), pixels


def _median(counts: NDArray[np.int64]) -> float:
    """The median of the values in a histogram; the mean of the middle two where they differ."""
    reached, total = np.cumsum(counts), int(counts.sum())
    low, high = (int(np.searchsorted(reached, rank, side="right")) for rank in ((total - 1) // 2, total // 2))
    return (low + high) / 2


def _mean_density(densities: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    red, green, blue = densities
    return (red + green + blue) * np.float32(1 / 3)


def optical_density(rgb: NDArray[np.uint8], glass: tuple[float, float, float]) -> list[NDArray[np.float32]]:
    """Optical densities of red, green and blue, each (height, width), relative to ``glass``, and never below 0."""
    tables = [np.maximum(density_table(white), 0) for white in glass]
    return [table[rgb[..., channel]] for channel, table in enumerate(tables)]
