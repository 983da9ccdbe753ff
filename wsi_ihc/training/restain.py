"""An IHC-like target for H&E that has no IHC partner: the same tissue with its stains exchanged.

Not a prediction and no evidence of anything. It lets a generator see the colours of real scanners while the phantom
teaches it where brown belongs: nuclei keep their blue, eosin goes, and membranes around what looks like epithelium
(large round nuclei close together) turn brown.

Stain separation follows Ruifrok and Johnston 2001 with the vectors of each image found as by Macenko et al. 2009.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.training.densities import COUNTERSTAIN, DAB, EOSIN, HAEMATOXYLIN, Densities, unit

# How much of each dye the target gets, as densities of what is darkest.
_NUCLEAR = 0.75
_STROMA = 0.10
_BROWN = 1.1
_MEMBRANE_UM = 0.7
_CELL_RADIUS_UM = 5.0
_EPITHELIUM_UM = 14.0


def restain(he: NDArray[np.uint8], mpp: float, *, brown: bool = True) -> NDArray[np.uint8]:
    """The H&E image ``(h, w, 3)`` at ``mpp`` um/px as haematoxylin with DAB on membranes (or without ``brown``)."""
    nuclear, eosin = separate(he)
    density = _NUCLEAR * nuclear[..., None] * COUNTERSTAIN
    density += _STROMA * eosin[..., None] * (COUNTERSTAIN + DAB) / 2
    if brown:
        density += _BROWN * membranes(nuclear, nuclear + eosin, mpp)[..., None] * DAB
    painted: NDArray[np.uint8] = np.clip(256 * np.exp(-density) - 1, 0, 250).round().astype(np.uint8)
    return painted


def separate(he: NDArray[np.uint8]) -> tuple[Densities, Densities]:
    """Amounts of haematoxylin and eosin, ``(h, w)`` each, scaled so that the darkest hundredth of tissue is 1."""
    white = np.maximum(np.percentile(he.reshape(-1, 3), 99, axis=0), 200)
    density = np.maximum(-np.log((he.astype(np.float32) + 1) / (white.astype(np.float32) + 1)), 0)
    inverse = np.linalg.pinv(_stain_vectors(density)).astype(np.float32)
    amounts = np.maximum(density @ inverse, 0)
    tissue = density.sum(axis=2) > 0.3
    if tissue.sum() > 100:
        # An image of glass and a few specks has no darkest hundredth worth the name, hence the lower bound.
        amounts /= np.maximum(np.percentile(amounts[tissue], 99, axis=0), 0.4).astype(np.float32)
    return amounts[..., 0], amounts[..., 1]


def _stain_vectors(density: Densities) -> NDArray[np.float32]:
    """Haematoxylin and eosin of this image, ``(2, 3)`` of unit length: the extremes in the plane of its densities."""
    usual = np.stack([HAEMATOXYLIN, unit(EOSIN)])
    pixels = density.reshape(-1, 3)[:: max(1, density.size // 300_000)]
    pixels = pixels[(pixels.max(axis=1) > 0.15) & (pixels.max(axis=1) < 2.5)]
    if len(pixels) < 1000:
        return usual
    _, axes = np.linalg.eigh(np.cov(pixels.T))
    plane = axes[:, [2, 1]] * np.where(axes[:, [2, 1]].sum(axis=0) < 0, -1, 1)
    angles = np.arctan2(*(pixels @ plane)[:, ::-1].T)
    extremes = np.percentile(angles, [1, 99])
    found = np.abs(np.stack([np.cos(extremes), np.sin(extremes)], axis=1) @ plane.T)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    # Haematoxylin is the one that takes more red.
    found = found[np.argsort(-found[:, 0] / found[:, 1])]
    plausible = (found * usual).sum(axis=1) > np.cos(np.deg2rad(28))
    return np.where(plausible[:, None], found, usual).astype(np.float32)


def membranes(nuclear: Densities, tissue: Densities, mpp: float) -> Densities:
    """How much a pixel lies on the border of an epithelial cell, in [0, 1].

    Cells are what lies within 5 um of a nucleus and nearer to it than to the next; their common borders and outer
    edges are the membranes.
    """
    distance, cells = _cells(nuclear, mpp)
    edges = np.zeros(cells.shape, np.uint8)
    inside = distance < _CELL_RADIUS_UM / mpp
    owner = np.where(inside, cells, 0)
    edges[:-1] |= owner[:-1] != owner[1:]
    edges[:, :-1] |= owner[:, :-1] != owner[:, 1:]
    to_edge = cv2.distanceTransform(1 - edges, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    line = np.exp(-0.5 * (to_edge * mpp / _MEMBRANE_UM) ** 2)
    # Membranes pass through cytoplasm: no brown on glass, none across a nucleus.
    cytoplasm = np.clip(tissue / 0.25, 0, 1) * np.clip(distance * mpp / 1.0, 0, 1)
    brown: Densities = (line * cytoplasm * _epithelium(nuclear, cells, distance, mpp)).astype(np.float32)
    return brown


def _cells(nuclear: Densities, mpp: float) -> tuple[Densities, NDArray[np.int32]]:
    """Distance to the nearest nucleus, pixels, and which nucleus that is, 1 and up."""
    smooth = cv2.GaussianBlur(nuclear, (0, 0), 0.8 / mpp)
    levels = np.clip(smooth * 200, 0, 255).astype(np.uint8)
    threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)
    nuclei = (levels > max(threshold, 60)).astype(np.uint8)
    nuclei = cast(NDArray[np.uint8], cv2.morphologyEx(nuclei, cv2.MORPH_OPEN, _disc(1.2 / mpp)))
    depth = cv2.GaussianBlur(cv2.distanceTransform(nuclei, cv2.DIST_L2, 5), (0, 0), 1.0 / mpp)
    # Touching nuclei part at the saddle between their deepest points.
    peaks = (depth >= cv2.dilate(depth, _disc(2.5 / mpp))) & (depth > 0.8 / mpp)
    seeds = cv2.dilate(peaks.astype(np.uint8), _disc(0.8 / mpp))
    if not seeds.any():
        return np.full(nuclear.shape, np.inf, np.float32), np.zeros(nuclear.shape, np.int32)
    _, cells = cv2.distanceTransformWithLabels(1 - seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_CCOMP)
    distance = cv2.distanceTransform(1 - nuclei, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return cast(Densities, distance), cast(NDArray[np.int32], cells)


def _epithelium(nuclear: Densities, cells: NDArray[np.int32], distance: Densities, mpp: float) -> Densities:
    """Where large, round nuclei lie close together, in [0, 1]; lymphocytes are small, fibroblasts long."""
    rows, columns = np.nonzero(distance == 0)
    owner = cells[rows, columns]
    count = np.bincount(owner, minlength=int(cells.max()) + 1).astype(np.float64)
    safe = np.maximum(count, 1)

    def mean(values: NDArray[np.generic]) -> NDArray[np.float64]:
        return np.bincount(owner, values, minlength=len(count)) / safe

    centre_y, centre_x = mean(rows), mean(columns)
    dy, dx = rows - centre_y[owner], columns - centre_x[owner]
    yy, xx, xy = mean(dy * dy) + 1 / 12, mean(dx * dx) + 1 / 12, mean(dy * dx)
    root = np.sqrt((yy - xx) ** 2 + 4 * xy**2)
    roundness = np.sqrt((yy + xx - root) / (yy + xx + root))
    area = count * mpp**2
    epithelial = np.clip((area - 25) / 15, 0, 1) * np.clip((roundness - 0.4) / 0.15, 0, 1)
    epithelial[0] = 0
    weight = (epithelial * area)[owner]
    field = np.zeros(nuclear.shape, np.float32)
    field[rows, columns] = np.where(count[owner] > 0, weight / safe[owner], 0) / mpp**2
    share = cv2.GaussianBlur(field, (0, 0), _EPITHELIUM_UM / mpp)
    return cast(Densities, np.clip((share - 0.10) / 0.12, 0, 1))


def _disc(radius: float) -> NDArray[np.uint8]:
    side = 2 * max(1, round(radius)) + 1
    return cast(NDArray[np.uint8], cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
