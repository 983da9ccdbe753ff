"""Shapes drawn over the pictures: outlines of tissue, blocks, places that a warning names. Level 0 pixels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.pyramid.geometry import Region
from wsi_ihc.tissue import TissueMask

TISSUE, BLOCKS, STAINED, WARNINGS = "tissue", "blocks", "stained", "warnings"
COLOURS: Mapping[str, str] = {TISSUE: "#0072b2", BLOCKS: "#7a7a7a", STAINED: "#009e73", WARNINGS: "#d55e00"}
"""Okabe and Ito's colours, which colour-blind people tell apart; each kind has a line of its own as well."""
DASHES: Mapping[str, tuple[int, ...]] = {TISSUE: (), BLOCKS: (2, 3), STAINED: (6, 3), WARNINGS: (9, 3, 2, 3)}
_TOLERANCE_PX = 0.75
"""Pixels of the mask that a drawn outline may leave the exact one by."""


@dataclass(frozen=True)
class Shapes:
    """One kind of shape: a toggle of the page."""

    kind: str
    name: str
    rings: tuple[NDArray[np.float64], ...] = field(repr=False)
    """Closed rings, each (n, 2) corners x, y."""
    shown: bool = False
    """Whether the page shows them before anybody asks."""

    def described(self) -> dict[str, Any]:
        """The shapes as the page's script reads them."""
        return {
            "kind": self.kind,
            "name": self.name,
            "colour": COLOURS[self.kind],
            "dash": DASHES[self.kind],
            "shown": self.shown,
            "rings": [ring.round(1).ravel().tolist() for ring in self.rings],
        }


def tissue_shapes(mask: TissueMask, scale: float) -> Shapes:
    """The outline of ``mask``; ``scale`` is level 0 pixels per working pixel of it."""
    contours, _ = cv2.findContours(mask.pixels.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    drawn = (cv2.approxPolyDP(contour, _TOLERANCE_PX, closed=True)[:, 0] for contour in contours)
    # OpenCV counts the centres of pixels; corners lie half a pixel further.
    rings = ((ring.astype(np.float64) + 0.5) * mask.downsample * scale for ring in drawn if len(ring) > 2)
    return Shapes(TISSUE, "Tissue", tuple(rings))


def block_shapes(kind: str, name: str, blocks: Iterable[Region], left: float, top: float, scale: float) -> Shapes:
    """The outlines of ``blocks`` of a picture whose corner lies at (left, top) at ``scale`` level 0 pixels a pixel."""
    rings = (_rectangle(block) * scale + (left, top) for block in blocks)
    return Shapes(kind, name, tuple(rings))


def _rectangle(region: Region) -> NDArray[np.float64]:
    top, left, bottom, right = region.top, region.left, region.bottom, region.right
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)
