"""Layers that are measured beside the stain: a plane of numbers for every block, computed outside the engines."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.pyramid.layers import STAINED, Layer
from wsi_ihc.pyramid.levels import Pixels

Measure = Callable[[Pixels, Pixels], Pixels]
"""Takes the H&E windows (n, window, window, 3) and the stained cores (n, core, core, 3) of n blocks; returns the plane
of each block, (n, core, core, channels). A core lies in the middle of its window. A value must not depend on where the
blocks lie: it sees no farther than the halo."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class MeasuredLayer:
    """A layer and the function that computes it. Workers get it by pickle: ``measure`` is a function of a module.

    Raises:
        ValueError: the name cannot be part of a file's name, or belongs to the stain; or no codec holds such a layer.
    """

    layer: Layer
    measure: Measure

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.layer.name) or self.layer.name == STAINED:
            raise ValueError(f"{self.layer.name!r} names no layer: use lower case letters, digits, - and _")
        assert self.layer.codec

    @property
    def measured_by(self) -> str:
        """The function in words, for a later run that asks whether the layer is still the same."""
        name = getattr(self.measure, "__qualname__", type(self.measure).__qualname__)
        return f"{self.measure.__module__}.{name}"

    def on_tissue(self, plane: Pixels, coverage: NDArray[np.float32] | None) -> Pixels:
        """The ``plane`` of a block with the layer's fill where ``coverage`` (core, core) is 0; None covers all."""
        if coverage is None:
            return plane
        filled = plane.copy()
        filled[coverage == 0] = self.layer.fill
        return filled
