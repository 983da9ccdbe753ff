"""The cell that owns each pixel, and the distance to its border: from the two nearest cell centres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.phantom.noise import Floats, grain
from wsi_ihc.phantom.patches import Canvas, patches, texture_windows


@dataclass(frozen=True, slots=True)
class Territories:
    """Layers over one canvas, (height, width) each."""

    nearest: Floats
    """Distance to the owner, um, roughened; the reach where there is none."""
    gap: Floats
    """Second nearest less nearest, um: 0 on a border, twice the distance to it inside."""
    owner: NDArray[np.int32]
    """Index of the owner, -1 where there is none."""


def draw_territories(
    canvas: Canvas,
    y_um: Floats,
    x_um: Floats,
    head_start: Floats,
    luck: Floats,
    *,
    reach_um: float,
    roughness_um: float,
    lump_um: float,
) -> Territories:
    """Divides the plane among cell centres. A ``head_start`` (um) enlarges a cell; none is wider than ``reach_um``.

    Borders are rough by about ``roughness_um``, in lumps of ``lump_um``.
    """
    shape = (canvas.height, canvas.width)
    nearest, second = np.full(shape, reach_um, np.float32), np.full(shape, reach_um, np.float32)
    owner = np.full(shape, -1, np.int32)
    texture = grain(73, lump_um, canvas.um_per_px)
    for chunk in patches(canvas, y_um, x_um, reach_um):
        distance = np.sqrt(chunk.dy**2 + chunk.dx**2)
        distance += np.float32(roughness_um) * texture_windows(texture, luck[chunk.members], chunk.side)
        distance -= head_start[chunk.members][:, None, None]
        for index, member in enumerate(chunk.members.tolist()):
            where, part = chunk.place(index, canvas.height, canvas.width)
            mine, first = distance[index][part], nearest[where]
            np.copyto(owner[where], member, where=mine < first)
            target = second[where]
            np.minimum(target, np.maximum(first, mine), out=target)
            np.minimum(first, mine, out=first)
    return Territories(nearest, second - nearest, owner)


def per_pixel(values: Floats, territories: Territories) -> Floats:
    """The value of the owner at every pixel, (height, width); 0 where no cell is."""
    return np.append(values, np.float32(0))[territories.owner]
