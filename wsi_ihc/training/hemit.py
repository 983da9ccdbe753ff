"""Brightfield pan-cytokeratin IHC from HEMIT: real H&E and the multiplex image of the same section, cell by cell.

HEMIT (Bian et al., arXiv 2403.18501; CC BY 4.0; raw data of ImmunoAIzer) has fields of 512 px at about 0.25 um/px.
Its multiplex images hold three antigens as inverted RGB: ``255 - R = DAPI + panCK``, ``255 - G = CD3 + panCK`` and
``255 - B = panCK``.

The truth has faults, which ``judge_field`` and ``clean`` treat by rule. Each field was stretched by itself: where two
fields overlap, their pan-cytokeratin differs by a factor (most by a few percent, some by two). So strength is measured
against the epithelium of the same field, or of its region where the field has too little.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.measures.density import density_tables, optical_density
from wsi_ihc.training.densities import COUNTERSTAIN, Densities, blurred
from wsi_ihc.training.restain import GLASS, separate

_Number = TypeVar("_Number", np.uint8, np.float32)
Image = NDArray[np.uint8]
Verdict = Literal["good", "flat", "raised", "ragged", "seam"]

MPP, WORKING_MPP = 0.25, 0.5
"""um/px of the fields, and of the pairs that are made of them. The data set does not state its own."""

BROWN = np.array((0.31, 0.55, 0.775), np.float32)
"""DAB of unit length, between Ruifrok and Johnston's and that of two public slides."""
_DAB_OF_LEVEL = 1.5
"""Natural density of DAB where pan-cytokeratin is as strong as in the strongest tenth of epithelium."""
_STRONGEST = 1.3
_FLOOR = 0.12
"""Signal below this share of the level does not develop: background of the fluorescence."""
_VEIL, _VEIL_UM = 0.2, 2.0
"""A section is thicker than the focus: brown above and below a nucleus lies over it as a tan veil."""
_NUCLEAR, _HAZE = 0.9, 0.11
_CYTOPLASM = 0.12

_SMOOTH_UM = 1.0
_RAISED = 8
"""Level of 255: where even the darkest twentieth of a field is above, the field was stretched over its background."""
_FLAT_CONTRAST = 3.0
"""Light over dark parts of a raised field: below, nothing in it stands out, and nothing in it is epithelium."""
_POSITIVE = 0.35
"""Share of a region's brightest hundredth from which smoothed pan-cytokeratin counts as positive."""
_ISLAND = 0.2
_LEAST_ISLAND_UM2 = 120.0
"""Positive islands below this are cells that shine by themselves (eosinophils), and debris."""
_ENOUGH = 0.05
"""Share of a field that must be positive for the field to have a level of its own."""
_CD3 = 20
_LYMPHOID_SHARE = 0.3
"""Share of CD3 in a positive island from which it is lymphoid tissue."""
_NUCLEUS_UM = 3.0
"""Half the width of a nucleus."""
_RAGGED = 0.085
"""Share of a field that is edge of what is positive, from which it was cut off below: 0.05 is usual."""
_GLASS_DENSITY = 0.12
"""Mean natural density of the H&E, averaged over 1 um, below which there is nothing that could be stained."""
_SEAM = 4.0
"""A column of the H&E whose step to the next is this many times that of its surroundings is a seam."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its H&E ``(h, w, 3)`` and the antigens, ``(h, w)`` each, 0 to 255."""

    he: Image
    panck: Densities
    cd3: Densities


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A field's pan-cytokeratin in units of its level, and where its epithelium is, ``(h, w)`` each."""

    signal: Densities
    epithelium: NDArray[np.bool_]
    verdict: Verdict


def read_channels(he: Image, multiplex: Image) -> Field:
    """The antigens of a multiplex image; what the encoding cannot mean is clipped at 0."""
    _, green, blue = np.moveaxis(multiplex.astype(np.float32), 2, 0)
    return Field(he, 255 - blue, np.maximum(blue - green, 0))


def region_levels(fields: Iterable[Field]) -> tuple[float, float]:
    """What counts as positive in a region, and how strong its epithelium is; both of 255, by its unraised fields."""
    smoothed = []
    raw = []
    for field in fields:
        values = _smooth(field.panck)
        if not is_raised(field):
            smoothed.append(values[::4, ::4])
            raw.append(field.panck[::4, ::4])
    if not smoothed:
        return 255.0, 255.0
    threshold = _POSITIVE * max(float(np.percentile(np.stack(smoothed), 99)), 40.0)
    strong = [
        float(np.percentile(values[mask], 90))
        for values, mask in ((r, s > threshold) for r, s in zip(raw, smoothed, strict=True))
        if mask.mean() > _ENOUGH
    ]
    return threshold, float(np.median(strong)) if strong else 2 * threshold


def is_raised(field: Field) -> bool:
    """Whether the field was stretched over its background: nothing in it is dark."""
    return float(np.percentile(field.panck, 5)) > _RAISED


def clean(field: Field, threshold: float, region_level: float) -> Cleaned:
    """The pan-cytokeratin of a field by the rules of this module; ``region_levels`` gives the two levels."""
    verdict = judge_field(field)
    smoothed = _smooth(field.panck)
    background = float(np.percentile(smoothed, 1))
    level = field_level(field, threshold, region_level)
    signal = np.maximum(field.panck - background, 0) / max(level - background, 1)
    islands = keep_islands(_smooth(signal) > _ISLAND, _smooth(field.cd3) > _CD3)
    if verdict == "flat":
        islands = np.zeros_like(islands)
    islands &= has_tissue(field.he)
    reach = blurred(cv2.dilate(islands.astype(np.uint8), np.ones((9, 9), np.uint8)), 2.0)
    kept = np.clip((np.clip(signal, 0, _STRONGEST) - _FLOOR) / (1 - _FLOOR), 0, None) * reach
    return Cleaned(kept.astype(np.float32), _with_nuclei(islands), verdict)


def has_tissue(he: Image) -> NDArray[np.bool_]:
    """``(h, w)``: where an H&E image is not bare glass, whose colour is the lightest of the image, or near white."""
    white = np.maximum(np.percentile(he.reshape(-1, 3), 99, axis=0), 225)
    density = optical_density(he, density_tables(white)).mean(axis=2)
    tissue: NDArray[np.bool_] = _smooth(density) > _GLASS_DENSITY
    return tissue


def _with_nuclei(islands: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The islands with what they enclose closely: the nuclei of epithelium, which have no cytokeratin."""
    side = 2 * round(_NUCLEUS_UM / MPP) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    closed = cv2.morphologyEx(islands.astype(np.uint8), cv2.MORPH_CLOSE, disc)
    whole: NDArray[np.bool_] = closed > 0
    return whole


def judge_field(field: Field) -> Verdict:
    """Whether the field can be trusted as it is, by its own pixels."""
    if is_raised(field):
        dark, light = np.percentile(_smooth(field.panck), [5, 95])
        return "flat" if light < _FLAT_CONTRAST * dark else "raised"
    if has_seam(field.he):
        return "seam"
    return "ragged" if is_ragged(field.panck) else "good"


def is_ragged(panck: Densities) -> bool:
    """Whether what is positive has holes and no slopes: it was cut off below, and much of it is edge."""
    positive = (panck > 0).astype(np.uint8)
    edge = positive - cv2.erode(positive, np.ones((3, 3), np.uint8))
    return bool(edge.mean() > _RAGGED)


def has_seam(he: Image) -> bool:
    """Whether the image was joined of two at some column."""
    steps = np.abs(np.diff(he[..., 1].astype(np.float32), axis=1)).mean(axis=0)
    around = cv2.blur(steps[None], (31, 1))[0]
    return bool((steps / (around + 1)).max() > _SEAM)


def field_level(field: Field, threshold: float, region_level: float) -> float:
    """Strength of the field's own epithelium where it has enough, at most a factor of two from its region's."""
    positive = _smooth(field.panck) > threshold
    if positive.mean() < _ENOUGH:
        return region_level
    own = float(np.percentile(field.panck[positive], 90))
    return float(np.clip(own, region_level / 2, 2 * region_level))


def keep_islands(positive: NDArray[np.bool_], cd3: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The islands of ``positive`` that are large enough, or cut by the border, and are not lymphoid tissue."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(positive.astype(np.uint8), connectivity=4)
    height, width = positive.shape
    left, top, wide, high, area = stats.T
    inner = (left > 0) & (top > 0) & (left + wide < width) & (top + high < height)
    lymphoid = np.bincount(labels.ravel(), weights=cd3.ravel(), minlength=count) > _LYMPHOID_SHARE * area
    small = area < np.where(inner, _LEAST_ISLAND_UM2, _LEAST_ISLAND_UM2 / 3) / MPP**2
    keep = ~(small | lymphoid)
    keep[0] = False
    kept: NDArray[np.bool_] = keep[labels]
    return kept


def paint(he: Image, signal: Densities) -> Image:
    """The field as brightfield IHC at ``WORKING_MPP``: haematoxylin of its H&E, and DAB by Beer and Lambert.

    ``signal`` is ``(h, w)`` at ``MPP``, 1 where epithelium is strong. The light is averaged, not the density.
    """
    veiled = (1 - _VEIL / 2) * signal + _VEIL * blurred(signal, _VEIL_UM / MPP)
    light = shrink(np.exp(-_DAB_OF_LEVEL * veiled[..., None] * BROWN))
    painted: Image = np.clip(light * paint_counterstain(shrink(he)), 0, 255).round().astype(np.uint8)
    return painted


def paint_counterstain(he: Image) -> Densities:
    """What an H&E image ``(h, w, 3)`` would look like in haematoxylin alone, 0 to ``GLASS``."""
    haematoxylin, eosin = separate(he)
    nuclear = haematoxylin * np.clip((haematoxylin - 0.12) / 0.3, _CYTOPLASM, 1)
    grey = np.array((0.62, 0.58, 0.53), np.float32)
    density = _NUCLEAR * nuclear[..., None] * COUNTERSTAIN + _HAZE * np.minimum(eosin, 1)[..., None] * grey
    light: Densities = GLASS * np.exp(-density)
    return light


def shrink(pixels: NDArray[_Number]) -> NDArray[_Number]:
    """From ``MPP`` to ``WORKING_MPP`` by area averages, of the same type."""
    height, width = pixels.shape[:2]
    size = (round(width * MPP / WORKING_MPP), round(height * MPP / WORKING_MPP))
    return cast(NDArray[_Number], cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))


def _smooth(values: Densities) -> Densities:
    return blurred(values, _SMOOTH_UM / MPP)
