"""Layers that are measured beside the stain: a plane of numbers for every block, computed outside the engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.pyramid.layers import Layer
from wsi_ihc.pyramid.levels import Pixels

Measure = Callable[[Pixels, Pixels], Pixels]
"""Takes the H&E windows (n, window, window, 3) and the stained cores (n, core, core, 3) of n blocks; returns the plane
of each block, (n, core, core, channels). A core lies in the middle of its window."""


@dataclass(frozen=True)
class MeasuredLayer:
    """A layer and the function that computes it. Workers get it by pickle: ``measure`` is a function of a module."""

    layer: Layer
    measure: Measure

    def on_tissue(self, plane: Pixels, coverage: NDArray[np.float32] | None) -> Pixels:
        """The ``plane`` of a block with the layer's fill where ``coverage`` (core, core) is 0; None covers all."""
        if coverage is None:
            return plane
        filled = plane.copy()
        filled[coverage == 0] = self.layer.fill
        return filled
