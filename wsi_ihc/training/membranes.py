"""Cell membranes drawn where real H&E shows what looks like epithelium.

A drawing and no evidence of HER2: H&E does not show which membranes carry it. Nuclei are found by their haematoxylin,
cells grow around them until they touch, and the lines where cells of a cohesive cluster touch are the membranes. Large
nuclei close together count as epithelium; lymphocytes are small, fibroblasts long, and get none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray
from skimage.segmentation import watershed

from wsi_ihc.training.densities import Densities

_Labels = NDArray[np.int32]
"""``(h, w)``: 0 for none, then 1 and up."""

_LEAST_NUCLEAR = 0.25
"""Haematoxylin of the palest nucleus, relative to the darkest of the image."""
_NEIGHBOURHOOD_UM = 9.0
"""A nucleus is darker than the mean of what lies this far around it: cytoplasm is dark, too, where stain is thick."""
_LEAST_NUCLEUS_UM2 = 10.0
_SMALL_UM2, _LARGE_UM2 = 26.0, 40.0
"""Nuclei of lymphocytes are below, of epithelium above."""
_LONG, _ROUND = 0.4, 0.55
"""Short axis over long: fibroblasts are below, epithelium above."""
_SPARSE, _DENSE = 0.14, 0.22
"""Share of a neighbourhood under large round nuclei: from where a cluster is taken for epithelium."""
_CLUSTER_UM = 12.0
_CELL_UM = 4.5
"""How far a cell reaches from its nucleus, at most."""
_FREE_SIDE = 0.6
"""How strong the membrane of a cell's free side is beside one that two cells share."""
_TISSUE_UM, _LEAST_TISSUE = 1.5, 0.2
"""A cell's fine cracks are its own; glass is where this blur leaves less dye than that."""
_LINE_UM = 0.45
"""Sigma of a membrane's profile: about 1 um wide at half its height."""


@dataclass(frozen=True, slots=True)
class Nuclei:
    """The nuclei of an image, numbered from 1, by which haematoxylin they hold."""

    labels: _Labels
    epithelial: NDArray[np.float32]
    """For each number, from 0 (which is no nucleus) how surely it belongs to epithelium, 0 to 1."""


def find_nuclei(nuclear: Densities, mpp: float) -> Nuclei:
    """Nuclei in the haematoxylin ``(h, w)`` of an image at ``mpp`` um/px, whose darkest is 1."""
    labels = _segment(nuclear, mpp)
    count = np.bincount(labels.ravel())
    area = count * mpp**2
    likely = _between(area, _SMALL_UM2, _LARGE_UM2) * _between(_roundness(labels), _LONG, _ROUND)
    likely[0] = 0
    share = cv2.GaussianBlur(likely[labels], (0, 0), _CLUSTER_UM / mpp)
    cohesion = np.bincount(labels.ravel(), share.ravel()) / count
    epithelial = _between(cohesion, _SPARSE, _DENSE) * _between(area, 0, _SMALL_UM2)
    epithelial[0] = 0
    return Nuclei(labels, epithelial.astype(np.float32))


def _roundness(labels: _Labels) -> NDArray[np.float64]:
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


def _segment(nuclear: Densities, mpp: float) -> _Labels:
    smooth = cv2.GaussianBlur(nuclear, (0, 0), 0.6 / mpp)
    stained = smooth[smooth > 0.1]
    if not stained.size or np.ptp(stained) < 0.1:
        return np.zeros(nuclear.shape, np.int32)
    surroundings = cv2.GaussianBlur(smooth, (0, 0), _NEIGHBOURHOOD_UM / mpp)
    levels = np.clip(stained * 200, 0, 255).astype(np.uint8)
    threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)
    floor = max(_LEAST_NUCLEAR, 0.7 * threshold / 200)
    mask = ((smooth > surroundings) & (smooth > floor)).astype(np.uint8)
    # Pale chromatin leaves holes in a nucleus, threads of collagen are thinner than one.
    mask = cast(NDArray[np.uint8], cv2.morphologyEx(mask, cv2.MORPH_CLOSE, _disc(0.6 / mpp)))
    mask = cast(NDArray[np.uint8], cv2.morphologyEx(_filled(mask, 12 / mpp**2), cv2.MORPH_OPEN, _disc(1.1 / mpp)))
    # Touching nuclei part at the saddle between their deepest points.
    depth = cv2.GaussianBlur(cv2.distanceTransform(mask, cv2.DIST_L2, 5), (0, 0), 1.0 / mpp)
    peaks = (depth >= cv2.dilate(depth, _disc(2.0 / mpp))) & (depth > 0.7 / mpp)
    _, seeds = cv2.connectedComponents(peaks.astype(np.uint8))
    labels = _flooded(-depth, seeds, mask > 0)
    small = np.bincount(labels.ravel()) * mpp**2 < _LEAST_NUCLEUS_UM2
    _, numbered = np.unique(np.where(small[labels], 0, labels), return_inverse=True)
    return numbered.reshape(labels.shape).astype(np.int32)


def _filled(mask: NDArray[np.uint8], most_px: float) -> NDArray[np.uint8]:
    """Without its holes of up to ``most_px`` pixels."""
    _, holes, stats, _ = cv2.connectedComponentsWithStats(1 - mask, connectivity=4)
    return np.where(stats[holes, cv2.CC_STAT_AREA] <= most_px, 1, mask).astype(np.uint8)


def draw_membranes(nuclei: Nuclei, stained: Densities, mpp: float) -> Densities:
    """How much a pixel lies on a membrane, ``(h, w)`` in [0, 1]; none on glass, where ``stained``, all dye, is none."""
    tissue = cv2.GaussianBlur(stained, (0, 0), _TISSUE_UM / mpp) > _LEAST_TISSUE
    distance = cv2.distanceTransform((nuclei.labels == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    cells = _flooded(distance, nuclei.labels, tissue & (distance < _CELL_UM / mpp))
    lines = np.zeros(cells.shape, np.float32)
    for here, there in (
        (np.s_[:-1, :], np.s_[1:, :]),
        (np.s_[:, :-1], np.s_[:, 1:]),
    ):
        first, second = cells[here], cells[there]
        # A cell's free side stains as well, but its place is known less.
        inner = np.minimum(nuclei.epithelial[first], nuclei.epithelial[second])
        outer = np.maximum(nuclei.epithelial[first], nuclei.epithelial[second])
        strength = np.where((first > 0) & (second > 0), inner, _FREE_SIDE * outer)
        lines[here] = np.maximum(lines[here], np.where(first != second, strength, 0))
    sigma = _LINE_UM / mpp
    # A line one pixel wide keeps its height when it is made soft.
    soft = cv2.GaussianBlur(lines, (0, 0), sigma) * np.float32(np.sqrt(2 * np.pi) * sigma)
    return cast(Densities, np.minimum(soft, 1))


def _flooded(landscape: MatLike, seeds: MatLike, mask: NDArray[np.bool_]) -> _Labels:
    """Seeds grown from low to high over ``mask`` until they touch."""
    grown: _Labels = watershed(landscape, seeds, mask=mask)  # type: ignore[no-untyped-call]
    return grown


def _between(values: NDArray[np.floating[Any]], none: float, whole: float) -> NDArray[np.float64]:
    """0 up to ``none``, 1 from ``whole``, straight between."""
    return np.clip((values.astype(np.float64) - none) / (whole - none), 0, 1)


def _disc(radius: float) -> NDArray[np.uint8]:
    side = 2 * max(1, round(radius)) + 1
    return cast(NDArray[np.uint8], cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
