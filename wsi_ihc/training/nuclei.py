"""The nuclei of real H&E, and which of them look like epithelium.

Found by their haematoxylin, parted where they touch, and judged by size, roundness and company: large round nuclei
close together count as epithelium; lymphocytes are small, fibroblasts long, and folds of keratin pink.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import watershed

from wsi_ihc.training.densities import Densities, blurred

Labels = NDArray[np.int32]
"""``(h, w)``: 0 for none, then 1 and up."""

_LEAST_NUCLEAR = 0.25
"""Haematoxylin of the palest nucleus, relative to the darkest of the image."""
_NEIGHBOURHOOD_UM = 9.0
"""A nucleus is darker than the mean of what lies this far around it: cytoplasm is dark, too, where stain is thick."""
_NUCLEUS_UM = 3.0
"""Half the width of a usual nucleus: deeper than that in one says nothing more about its centre."""
_LEAST_DEPTH_UM = 0.7
_SPOT_UM = 2.0
"""Sigma of the spots that nuclei are, where they touch."""
_DARK_CENTRES = 2.5
"""What being darker than around counts beside being far from the outline."""
_LEAST_NUCLEUS_UM2 = 10.0
_SMALL_UM2, _LARGE_UM2 = 26.0, 40.0
"""Nuclei of lymphocytes are below, of epithelium above."""
_PINK, _BLUE = 0.44, 0.52
"""Share of haematoxylin in the dye of a dark spot: folds of keratin are below, nuclei above."""
_CROSSED, _STREAKED = 0.55, 0.72
"""How much all edges around run one way, 0 to 1: cells lie below, lamellae of keratin above."""
_STREAK_UM = 8.0
_LONG, _ROUND = 0.4, 0.55
"""Short axis over long: fibroblasts are below, epithelium above."""
_SPARSE, _DENSE = 0.18, 0.26
"""Share of a neighbourhood under nuclei: from where they are taken for a cluster."""
_CLUSTER_UM = 12.0
_FEW, _MANY = 0.3, 0.5
"""Share of large round ones among the nuclei of a wider neighbourhood: from where a cluster is taken for epithelium."""
_NEST_UM = 20.0


@dataclass(frozen=True, slots=True)
class Nuclei:
    """The nuclei of an image, numbered from 1, by which haematoxylin they hold."""

    labels: Labels
    epithelial: NDArray[np.float32]
    """For each number, from 0 (which is no nucleus) how surely it belongs to epithelium, 0 to 1."""


def find_nuclei(nuclear: Densities, eosin: Densities, mpp: float) -> Nuclei:
    """Nuclei in the haematoxylin and eosin, ``(h, w)`` each and 1 where darkest, of an image at ``mpp`` um/px."""
    labels = _segment(nuclear, mpp)
    count = np.bincount(labels.ravel())
    area = count * mpp**2

    def mean(layer: NDArray[Any]) -> NDArray[np.float64]:
        return np.bincount(labels.ravel(), layer.ravel()) / count

    stained = nuclear + eosin
    cellular = _between(mean(nuclear) / np.maximum(mean(stained), 1e-6), _PINK, _BLUE)
    cellular *= 1 - _between(mean(_streaks(stained, mpp)), _CROSSED, _STREAKED)
    roundness = _roundness(labels)
    likely = cellular * _between(area, _SMALL_UM2, _LARGE_UM2) * _between(roundness, _LONG, _ROUND)
    likely[0] = 0
    nuclei = labels > 0
    votes = blurred(likely[labels], _NEST_UM / mpp) / np.maximum(blurred(nuclei, _NEST_UM / mpp), 1e-3)
    epithelial = _between(mean(blurred(nuclei, _CLUSTER_UM / mpp)), _SPARSE, _DENSE)
    # What a cluster is decides for the odd one in it, unless that is very small or very long.
    epithelial *= _between(mean(votes), _FEW, _MANY) * cellular
    epithelial *= _between(area, 0, _SMALL_UM2) * _between(roundness, _LONG / 2, _LONG)
    epithelial[0] = 0
    return Nuclei(labels, epithelial.astype(np.float32))


def _streaks(stained: Densities, mpp: float) -> Densities:
    """Coherence of the structure tensor (Bigun and Granlund 1987), ``(h, w)``: 1 where every edge around runs the same
    way, 0 where they run anyhow.
    """
    smooth = blurred(stained, 0.5 / mpp)
    down, right = cv2.Sobel(smooth, cv2.CV_32F, 0, 1), cv2.Sobel(smooth, cv2.CV_32F, 1, 0)
    yy, xx, xy = (blurred(product, _STREAK_UM / mpp) for product in (down * down, right * right, down * right))
    return cast(Densities, np.sqrt((yy - xx) ** 2 + 4 * xy**2) / np.maximum(yy + xx, 1e-6))


def _roundness(labels: Labels) -> NDArray[np.float64]:
    """Short axis over long of the ellipse of equal moments, for every number."""
    rows, columns = np.nonzero(labels)
    owner = labels[rows, columns]
    count = np.maximum(np.bincount(owner, minlength=int(labels.max()) + 1), 1)

    def mean(values: NDArray[np.generic]) -> NDArray[np.float64]:
        return np.bincount(owner, values, minlength=len(count)) / count

    dy, dx = rows - mean(rows)[owner], columns - mean(columns)[owner]
    yy, xx, xy = mean(dy * dy), mean(dx * dx), mean(dy * dx)
    root = np.sqrt((yy - xx) ** 2 + 4 * xy**2)
    # A pixel has an extent of its own, a variance of 1/12 along each side.
    return np.sqrt((yy + xx + 1 / 6 - root) / (yy + xx + 1 / 6 + root))


def _segment(nuclear: Densities, mpp: float) -> Labels:
    """All nuclei, of whatever kind, apart."""
    smooth = blurred(nuclear, 0.6 / mpp)
    stained = smooth[smooth > 0.1]
    if not stained.size or np.ptp(stained) < 0.1:
        return np.zeros(nuclear.shape, np.int32)
    surroundings = blurred(smooth, _NEIGHBOURHOOD_UM / mpp)
    levels = np.clip(stained * 200, 0, 255).astype(np.uint8)
    threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)
    floor = max(_LEAST_NUCLEAR, 0.7 * threshold / 200)
    mask = ((smooth > surroundings) & (smooth > floor)).astype(np.uint8)
    # Pale chromatin leaves holes in a nucleus, threads of collagen are thinner than one.
    mask = cast(NDArray[np.uint8], cv2.morphologyEx(mask, cv2.MORPH_CLOSE, _disc(0.6 / mpp)))
    mask = cast(NDArray[np.uint8], cv2.morphologyEx(_filled(mask, 12 / mpp**2), cv2.MORPH_OPEN, _disc(1.1 / mpp)))
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) * np.float32(mpp)
    roundness = blurred(np.minimum(depth, _NUCLEUS_UM), 1.0 / mpp) / _NUCLEUS_UM
    centres = roundness + _DARK_CENTRES * _darker_than_around(nuclear, mpp)
    peaks = (centres >= cv2.dilate(centres, _disc(2.0 / mpp))) & (depth > _LEAST_DEPTH_UM)
    _, seeds = cv2.connectedComponents(peaks.astype(np.uint8))
    # Touching nuclei part at the saddle between their centres.
    labels: Labels = watershed(-centres, seeds, mask=mask > 0, connectivity=2)  # type: ignore[no-untyped-call]
    small = np.bincount(labels.ravel()) * mpp**2 < _LEAST_NUCLEUS_UM2
    _, numbered = np.unique(np.where(small[labels], 0, labels), return_inverse=True)
    return numbered.reshape(labels.shape).astype(np.int32)


def _darker_than_around(nuclear: Densities, mpp: float) -> Densities:
    """The Laplacian of a Gaussian of a nucleus' size, ``(h, w)`` (Marr and Hildreth 1980): nuclei in a row are darker
    than the lines between them.
    """
    solid = cv2.morphologyEx(nuclear, cv2.MORPH_CLOSE, _disc(0.8 / mpp))
    sigma = _SPOT_UM / mpp
    return cast(Densities, cv2.Laplacian(blurred(solid, sigma), cv2.CV_32F) * np.float32(-(sigma**2)))


def _filled(mask: NDArray[np.uint8], most_px: float) -> NDArray[np.uint8]:
    """Without its holes of up to ``most_px`` pixels."""
    _, holes, stats, _ = cv2.connectedComponentsWithStats(1 - mask, connectivity=4)
    return np.where(stats[holes, cv2.CC_STAT_AREA] <= most_px, 1, mask).astype(np.uint8)


def _between(values: NDArray[np.floating[Any]], none: float, whole: float) -> NDArray[np.float64]:
    """0 up to ``none``, 1 from ``whole``, straight between."""
    return np.clip((values.astype(np.float64) - none) / (whole - none), 0, 1)


def _disc(radius: float) -> NDArray[np.uint8]:
    side = 2 * max(1, round(radius)) + 1
    return cast(NDArray[np.uint8], cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
