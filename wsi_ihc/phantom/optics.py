"""From stain to pixels: Beer-Lambert, the scanner's blur, its noise, JPEG."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.measures.dyes import Vector
from wsi_ihc.phantom.noise import Floats

Rgb = NDArray[np.uint8]

NOISE_SIDE = 512
LN10 = float(np.log(10))


def transmit(layers: tuple[tuple[Floats, Vector], ...], white: Vector, gamma: float) -> Rgb:
    """Light through stains: ``white * 10 ** -density``, densities (height, width) per stain. Returns RGB."""
    channels = []
    for channel in range(3):
        exponent = layers[0][0] * np.float32(-LN10 * gamma * layers[0][1][channel])
        for stain, vector in layers[1:]:
            cv2.scaleAdd(stain, -LN10 * gamma * vector[channel], exponent, exponent)
        channels.append(cv2.convertScaleAbs(cv2.exp(exponent, exponent), alpha=white[channel]))
    return _rgb(cv2.merge(channels))


def _rgb(picture: Any) -> Rgb:
    """A result of OpenCV as uint8 RGB: its stubs do not state the type."""
    return np.asarray(picture, np.uint8)


def blur(picture: Rgb, sigma_px: float) -> Rgb:
    """``picture`` under the point spread function of a scanner, a Gaussian over intensities."""
    return picture if sigma_px < 0.15 else _rgb(cv2.GaussianBlur(picture, (0, 0), sigma_px))


def add_noise(picture: Rgb, sigma: float, top: int, left: int) -> Rgb:
    """Adds sensor noise, a function of the position on the plane, to a window of at most ``NOISE_SIDE`` px."""
    top, left = top % NOISE_SIDE, left % NOISE_SIDE
    pattern = _noise(round(sigma, 2))[top : top + picture.shape[0], left : left + picture.shape[1]]
    # Noise has an offset of 128, so that saturating 8-bit arithmetic can add it.
    return _rgb(cv2.addWeighted(picture, 1, pattern, 1, -128))


@lru_cache(maxsize=4)
def _noise(sigma: float) -> Rgb:
    """Noise as of a demosaiced sensor: mostly common to the three channels, slightly correlated between pixels."""
    rng = np.random.default_rng(91)
    common, own = (rng.standard_normal((NOISE_SIDE, NOISE_SIDE, channels)) for channels in (1, 3))
    white = 0.8 * common + 0.6 * own
    soft = cv2.GaussianBlur(white.astype(np.float32), (3, 3), 0.5, borderType=cv2.BORDER_REFLECT)
    soft *= sigma / soft.std()
    return np.tile(np.clip(np.rint(128 + soft), 0, 255).astype(np.uint8), (2, 2, 1))


def jpeg_round_trip(picture: Rgb, quality: int) -> Rgb:
    """``picture`` after JPEG compression of ``quality`` and decompression."""
    _, encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(_rgb(cv2.imdecode(encoded, cv2.IMREAD_COLOR))[..., ::-1])
