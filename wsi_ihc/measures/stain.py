"""Stain measures by colour deconvolution: how much DAB there is, where it is, and whether the nuclei stayed.

Optical densities are decadic, with glass at 255: ``od = -log10(max(pixel, 1) / 255)``. Deconvolution solves
``od = stains @ vectors`` (Ruifrok and Johnston 2001) with unit vectors and their normal as the third stain.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.measures.density import DECADIC, density_table
from wsi_ihc.measures.dyes import DAB, EOSIN, HAEMATOXYLIN, Vector
from wsi_ihc.measures.fidelity import ssim_plane

_OPTICAL_DENSITY = density_table(base=DECADIC, added=0)

BROWN_OD = 0.2
"""DAB optical density from which a pixel counts as brown: the usual lowest positive threshold (QuPath's 1+)."""
HISTOGRAM_BINS, HISTOGRAM_OD = 256, 2.0
"""Bins of the DAB histogram between 0 and this optical density; pixels outside fall into the end bins."""
HAEMATOXYLIN_RANGE = 1.0
"""Data range of the haematoxylin SSIM, in optical density: what a dark nucleus reaches."""


def _unmixing(first: Vector, second: Vector) -> NDArray[np.float32]:
    """Matrix (3, 3) from densities in red, green, blue to amounts of both stains and of what neither explains."""
    a, b = (np.array(vector) / np.linalg.norm(vector) for vector in (first, second))
    normal = np.cross(a, b)
    rows = np.stack([a, b, normal / np.linalg.norm(normal)])
    return np.asarray(np.linalg.inv(rows).T, np.float32)


def unmix(image: NDArray[np.uint8], stains: Literal["h-dab", "h-e"]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Optical density planes (height, width): haematoxylin, then DAB or eosin; negative where the hue misses."""
    second = DAB if stains == "h-dab" else EOSIN
    density = cv2.LUT(image, _OPTICAL_DENSITY)
    separated = cv2.transform(density, _unmixing(HAEMATOXYLIN, second)[:2])
    haematoxylin, other = (np.asarray(cv2.extractChannel(separated, stain), np.float32) for stain in (0, 1))
    return haematoxylin, other


def top_decile(density: NDArray[np.float32]) -> float:
    """Mean of the darkest tenth of the pixels: the staining strength that a pathologist's eye goes to."""
    values = density.ravel()
    count = max(1, values.size // 10)
    return float(np.partition(values, values.size - count)[-count:].mean(dtype=np.float64))


def integrated_density(density: NDArray[np.float32]) -> float:
    """Integrated optical density per pixel: the mean, negative values as none."""
    return float(np.maximum(density, 0).mean(dtype=np.float64))


def density_histogram(density: NDArray[np.float32]) -> NDArray[np.int64]:
    """Counts of pixels in 256 bins of DAB optical density."""
    bins = np.clip(density * np.float32(HISTOGRAM_BINS / HISTOGRAM_OD), 0, HISTOGRAM_BINS - 1).astype(np.uint8)
    return np.bincount(bins.ravel(), minlength=HISTOGRAM_BINS)


def histogram_divergence(real: NDArray[np.int64], generated: NDArray[np.int64]) -> float:
    """Kullback-Leibler divergence D(real || generated) in nats; half a pixel in every bin keeps it finite."""
    p, q = real + 0.5, generated + 0.5
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())


def brown_areas(real: NDArray[np.float32], generated: NDArray[np.float32]) -> tuple[int, int, int]:
    """Brown pixels in the real image, in the generated one, and in both."""
    a, b = real > BROWN_OD, generated > BROWN_OD
    return int(a.sum()), int(b.sum()), int((a & b).sum())


def dice(real_px: float, generated_px: float, both_px: float) -> float:
    """Twice the common area over the sum of the areas; NaN where neither image has any."""
    total = real_px + generated_px
    return 2 * both_px / total if total else float("nan")


def haematoxylin_ssim(he: NDArray[np.float32], ihc: NDArray[np.float32]) -> float:
    """SSIM of the haematoxylin planes of an H&E image and of the IHC made from it, both clipped to 0..1 OD."""
    return ssim_plane(np.clip(he, 0, HAEMATOXYLIN_RANGE), np.clip(ihc, 0, HAEMATOXYLIN_RANGE), HAEMATOXYLIN_RANGE)
