"""Random numbers as a function of position: hashed lattices, smooth noise and periodic textures.

Nothing here has a state, so the windows of the infinite plane can be drawn in any order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

TEXTURE_SIDE = 1024
"""Side of the periodic textures, in their own pixels."""
TEXTURE_PITCH_UM = 0.5
"""Micrometres of tissue under one texture pixel."""


def single(values: Any) -> Floats:
    """The values as an array in single precision; the type stubs of OpenCV do not state the type of results."""
    return np.asarray(values, np.float32)


@dataclass(frozen=True, slots=True)
class Grid:
    """Sample points on the plane: (``height``, ``width``) of them, ``pitch_um`` apart, the first at (top, left) um."""

    top_um: float
    left_um: float
    pitch_um: float
    height: int
    width: int

    @property
    def ys(self) -> NDArray[np.float64]:
        return self.top_um + self.pitch_um * np.arange(self.height, dtype=np.float64)

    @property
    def xs(self) -> NDArray[np.float64]:
        return self.left_um + self.pitch_um * np.arange(self.width, dtype=np.float64)

    def mesh(self) -> tuple[Floats, Floats]:
        """Coordinates of every sample, y as a column and x as a row, um."""
        return self.ys.astype(np.float32)[:, None], self.xs.astype(np.float32)[None, :]


def uniform(seed: int, channel: int, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Floats:
    """Independent numbers in [0, 1), one for each lattice point; the murmur3 finaliser mixes the bits."""
    mask = np.uint64(0xFFFFFFFF)
    with np.errstate(over="ignore"):
        bits = (rows.astype(np.uint64) & mask) * np.uint64(0x9E3779B185EBCA87)
        bits = bits ^ ((columns.astype(np.uint64) & mask) * np.uint64(0xC2B2AE3D27D4EB4F))
        bits = bits ^ np.uint64((seed * 0x165667B19E3779F9 + channel * 0xD6E8FEB86659FD93) & 0xFFFFFFFFFFFFFFFF)
        for shift, factor in ((33, 0xFF51AFD7ED558CCD), (33, 0xC4CEB9FE1A85EC53)):
            bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    return ((bits >> np.uint64(40)).astype(np.float32)) * np.float32(1 / (1 << 24))


def lattice(grid: Grid, pitch_um: float, margin_um: float = 0.0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows (column vector) and columns (row vector) of the lattice cells that touch the grid's rectangle."""
    rows = np.arange(
        np.floor((grid.top_um - margin_um) / pitch_um),
        np.floor((grid.top_um + grid.height * grid.pitch_um + margin_um) / pitch_um) + 1,
    )
    columns = np.arange(
        np.floor((grid.left_um - margin_um) / pitch_um),
        np.floor((grid.left_um + grid.width * grid.pitch_um + margin_um) / pitch_um) + 1,
    )
    return rows.astype(np.int64)[:, None], columns.astype(np.int64)[None, :]


def smooth(seed: int, channel: int, grid: Grid, scale_um: float) -> Floats:
    """Smooth noise of mean 0 and variance 1 within [-3, 3], its hills about ``2 * scale_um`` apart.

    Random heights on a lattice of ``scale_um``, interpolated by cubic B-splines (nearly isotropic, unlike linear).
    """
    weights_y, first_y = _spline_weights(grid.top_um / scale_um, grid.pitch_um / scale_um, grid.height)
    weights_x, first_x = _spline_weights(grid.left_um / scale_um, grid.pitch_um / scale_um, grid.width)
    rows = first_y + np.arange(weights_y.shape[1], dtype=np.int64)[:, None]
    columns = first_x + np.arange(weights_x.shape[1], dtype=np.int64)[None, :]
    # Uniform heights keep the field bounded; 3.61 brings the interpolated field to unit variance.
    heights = (uniform(seed, channel, rows, columns) * 2 - 1) * np.float32(3.61)
    return np.clip(_product(_product(weights_y, heights), np.ascontiguousarray(weights_x.T)), -3, 3)


def _product(a: Floats, b: Floats) -> Floats:
    """``a @ b`` in parts of 2**18 multiplications: for so few, OpenBLAS stays on the calling thread.

    On a busy processor its threads would cost a hundred times the time that they save on such small matrices.
    """
    result = np.empty((a.shape[0], b.shape[1]), np.float32)
    step = max(1, (1 << 18) // b.size)
    for start in range(0, len(a), step):
        np.matmul(a[start : start + step], b, out=result[start : start + step])
    return result


@lru_cache(maxsize=256)
def _spline_weights(start: float, step: float, count: int) -> tuple[Floats, int]:
    """Rows of cubic B-spline weights at ``count`` positions, and the lattice index of the first column."""
    positions = start + step * np.arange(count)
    base = np.floor(positions).astype(np.int64)
    f = positions - base
    parts = ((1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3)
    first = int(base[0]) - 1
    weights = np.zeros((len(positions), int(base[-1]) - int(base[0]) + 4), np.float32)
    index = np.arange(len(positions))
    for offset, part in enumerate(parts):
        weights[index, base - base[0] + offset] = part / 6
    return weights, first


def filtered_noise(channel: int, sigma_y: float, sigma_x: float, side: int = TEXTURE_SIDE) -> Floats:
    """A periodic texture of mean 0 and variance 1: white noise under a Gaussian of the given widths, in pixels."""
    white = np.random.default_rng(channel).standard_normal((side, side), dtype=np.float32)
    fy = np.fft.fftfreq(side)[:, None]
    fx = np.fft.rfftfreq(side)[None, :]
    response = np.exp(-2 * np.pi**2 * ((fy * sigma_y) ** 2 + (fx * sigma_x) ** 2))
    response[0, 0] = 0
    texture = np.fft.irfft2(np.fft.rfft2(white) * response, s=(side, side))
    return single(texture / texture.std())


def grain(channel: int, sigma_um: float, um_per_px: float) -> Floats:
    """A periodic isotropic texture whose lumps have the given size, to the nearest half octave."""
    octaves = round(2 * math.log2(um_per_px / TEXTURE_PITCH_UM)) / 2
    return _grain(channel, sigma_um / (TEXTURE_PITCH_UM * 2**octaves))


@lru_cache(maxsize=20)
def _grain(channel: int, sigma_px: float) -> Floats:
    """A texture without the lowest frequencies, so that its period is not visible."""
    texture = filtered_noise(channel, sigma_px, sigma_px) - 0.6 * filtered_noise(channel, 3 * sigma_px, 3 * sigma_px)
    return np.ascontiguousarray(np.clip(texture / texture.std(), -3, 3), np.float32)


def wrapped(texture: Floats, top: int, left: int, height: int, width: int) -> Floats:
    """The texture repeated over the plane, seen through a window in pixels."""
    rows = np.arange(top, top + height) % texture.shape[0]
    columns = np.arange(left, left + width) % texture.shape[1]
    return single(texture[rows].take(columns, axis=1))
