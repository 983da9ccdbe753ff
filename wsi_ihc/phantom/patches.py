"""Draws cells as many small patches: formulas run over hundreds of cells at once, and slices place the results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.phantom.noise import Floats, single

CHUNK_SAMPLES = 1 << 17
"""Samples evaluated at once: small enough for the processor's cache."""


@dataclass(frozen=True, slots=True)
class Canvas:
    """A window of the plane in pixels, whose sample (0, 0) is the centre of pixel (``top``, ``left``)."""

    top: int
    left: int
    height: int
    width: int
    um_per_px: float


@dataclass(frozen=True, slots=True)
class Patches:
    """Equal squares around some cells: their places on the canvas, and coordinates in um from the cell's centre."""

    members: NDArray[np.int64]
    """Index of the cell of each patch."""
    top: list[int]
    left: list[int]
    side: int
    dy: Floats
    """(cells, side, 1)"""
    dx: Floats
    """(cells, 1, side)"""

    def place(self, index: int, height: int, width: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Slices of the canvas and of the patch, cropped to the canvas."""
        top, left = self.top[index], self.left[index]
        rows = slice(max(0, top), min(height, top + self.side))
        columns = slice(max(0, left), min(width, left + self.side))
        return (rows, columns), (
            slice(rows.start - top, rows.stop - top),
            slice(columns.start - left, columns.stop - left),
        )

    def lay(self, layer: Floats, values: Floats) -> None:
        """Puts ``values`` (cells, side, side) on the ``layer`` of a canvas, where they are higher than its own."""
        for index in range(len(self.members)):
            where, part = self.place(index, *layer.shape)
            target = layer[where]
            np.maximum(target, values[index][part], out=target)


def patches(canvas: Canvas, y_um: Floats, x_um: Floats, reach_um: float) -> Iterator[Patches]:
    """Squares of ``reach_um`` around every point, in chunks; those that miss the canvas are left out."""
    pitch = canvas.um_per_px
    reach = int(np.ceil(reach_um / pitch))
    side = 2 * reach + 1
    # Positions in pixels, split before they lose precision: float32 is too coarse on a plane of 100,000 px.
    row = np.asarray(y_um, np.float64) / pitch - 0.5 - canvas.top
    column = np.asarray(x_um, np.float64) / pitch - 0.5 - canvas.left
    near_row, near_column = np.rint(row).astype(np.int64), np.rint(column).astype(np.int64)
    hit = (
        (near_row > -reach)
        & (near_row < canvas.height + reach)
        & (near_column > -reach)
        & (near_column < canvas.width + reach)
    )
    members = np.flatnonzero(hit)
    offsets = np.arange(-reach, reach + 1, dtype=np.float64)
    step = max(1, CHUNK_SAMPLES // side**2)
    for start in range(0, len(members), step):
        chunk = members[start : start + step]
        dy = (offsets - (row[chunk] - near_row[chunk])[:, None]) * pitch
        dx = (offsets - (column[chunk] - near_column[chunk])[:, None]) * pitch
        yield Patches(
            chunk,
            (near_row[chunk] - reach).tolist(),
            (near_column[chunk] - reach).tolist(),
            side,
            dy.astype(np.float32)[:, :, None],
            dx.astype(np.float32)[:, None, :],
        )


def texture_windows(texture: Floats, members: Floats, side: int) -> Floats:
    """For each cell its own piece of a periodic texture, chosen by a number in [0, 1): (cells, side, side)."""
    span = texture.shape[0] - side
    top = (members * span).astype(np.int64)
    left = ((members * 7919.0) % 1.0 * span).astype(np.int64)
    view = np.lib.stride_tricks.sliding_window_view(texture, (side, side))
    return single(view[top, left])
