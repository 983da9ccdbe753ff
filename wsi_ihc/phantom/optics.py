"""From stain to pixels: Beer-Lambert, the scanner's blur, its noise, JPEG."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.phantom.looks import Vector
from wsi_ihc.phantom.noise import Floats

Rgb = NDArray[np.uint8]

NOISE_SIDE = 512


def transmit(layers: tuple[tuple[Floats, Vector], ...], white: Vector, gamma: float) -> Rgb:
    """Light through stains: ``white * 10 ** -density``, densities (height, width) per stain. Returns RGB."""
    height, width = layers[0][0].shape
    picture = np.empty((height, width, 3), np.uint8)
    table = _transmittance(gamma)
    for channel in range(3):
        density = layers[0][0] * np.float32(layers[0][1][channel] * STEPS)
        for stain, vector in layers[1:]:
            density += stain * np.float32(vector[channel] * STEPS)
        index = np.clip(density, 0, len(table) - 1).astype(np.uint16)
        picture[..., channel] = (table * white[channel] + 0.5).astype(np.uint8)[index]
    return picture


STEPS = 1024
"""Table entries per unit of optical density."""


@lru_cache(maxsize=32)
def _transmittance(gamma: float) -> NDArray[np.float64]:
    return 10.0 ** (-np.arange(4 * STEPS) / STEPS * gamma)


def blur(picture: Rgb, sigma_px: float) -> Rgb:
    """The scanner's point spread, a Gaussian over intensities."""
    return picture if sigma_px < 0.15 else cv2.GaussianBlur(picture, (0, 0), sigma_px)


def add_noise(picture: Rgb, sigma: float, top: int, left: int) -> Rgb:
    """Sensor noise that belongs to the place on the plane."""
    rows = np.arange(top, top + picture.shape[0]) % NOISE_SIDE
    columns = np.arange(left, left + picture.shape[1]) % NOISE_SIDE
    pattern = _noise(round(sigma, 2))
    if rows[0] or columns[0] or picture.shape[:2] != pattern.shape[:2]:
        pattern = pattern[rows][:, columns]
    # Stored with an offset of 128, so that saturating 8-bit arithmetic does the work.
    return cv2.addWeighted(picture, 1, pattern, 1, -128)


@lru_cache(maxsize=4)
def _noise(sigma: float) -> Rgb:
    """Mostly common to the three channels, as demosaiced sensors have it, and a little correlated between pixels."""
    rng = np.random.default_rng(91)
    white = 0.8 * rng.standard_normal((NOISE_SIDE, NOISE_SIDE, 1)) + 0.6 * rng.standard_normal(
        (NOISE_SIDE, NOISE_SIDE, 3)
    )
    soft = cv2.GaussianBlur(white.astype(np.float32), (3, 3), 0.5, borderType=cv2.BORDER_REFLECT)
    soft *= sigma / soft.std()
    return np.clip(np.rint(128 + soft), 0, 255).astype(np.uint8)


def jpeg_round_trip(picture: Rgb, quality: int) -> Rgb:
    """What is left of a picture after the scanner's compression."""
    _, encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1])
