"""Pixel fidelity: PSNR, SSIM and multi-scale SSIM of a generated image against the real one.

SSIM equals ``skimage.metrics.structural_similarity`` and multi-scale SSIM equals torchmetrics' (both tested); they
are restated with box and separable filters because those two take seconds for a 1024 px image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SSIM_WINDOW = 7
_K1, _K2 = 0.01, 0.03
_STRIP = 128  # rows

# Wang, Simoncelli, Bovik: Multi-scale structural similarity, 2003.
_MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_MS_WINDOW, _MS_SIGMA = 11, 1.5
MS_SSIM_MIN_PX = (_MS_WINDOW - 1) * 2 ** (len(_MS_WEIGHTS) - 1) + 1


def psnr(real: NDArray[np.uint8], generated: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB of 8-bit images, range 255; infinite for equal images."""
    squared = cv2.norm(real, generated, cv2.NORM_L2SQR)
    return 10 * math.log10(255.0**2 * real.size / squared) if squared else math.inf


def ssim(real: NDArray[np.uint8], generated: NDArray[np.uint8]) -> float:
    """Structural similarity of 8-bit images with a 7 x 7 uniform window, sample covariance, mean over channels.

    The recipe of ``structural_similarity(real, generated, channel_axis=2)``. Window sums of 8-bit products are whole
    numbers below 2^24, so float32 box filters hold them exactly; only the last division rounds, in float64.
    """
    return _mean_over_strips(_ssim_strip, real, generated)


def _mean_over_strips(
    similarity: Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float64]], real: NDArray[Any], generated: NDArray[Any]
) -> float:
    """Mean of a map that loses half a window at every edge, made strip by strip to stay in the processor's cache."""
    height, margin = real.shape[0], SSIM_WINDOW // 2
    total, count = 0.0, 0
    for top in range(0, height - 2 * margin, _STRIP):
        rows = slice(top, min(top + _STRIP + 2 * margin, height))
        strip = similarity(real[rows], generated[rows])
        total += float(strip.sum())
        count += strip.size
    return total / count


def _ssim_strip(real: NDArray[np.uint8], generated: NDArray[np.uint8]) -> NDArray[np.float64]:
    x, y = real.astype(np.float32), generated.astype(np.float32)
    n = SSIM_WINDOW**2
    sum_x, sum_y, sum_xx, sum_yy, sum_xy = (_window_sums(v) for v in (x, y, x * x, y * y, x * y))
    c1, c2 = (_K1 * 255 * n) ** 2, (_K2 * 255) ** 2 * n * (n - 1)
    product, squares = sum_x * sum_y, sum_x * sum_x + sum_y * sum_y
    numerator = (2 * product + c1) * (2 * (n * sum_xy - product) + c2)
    denominator = (squares + c1) * (n * (sum_xx + sum_yy) - squares + c2)
    similarity: NDArray[np.float64] = numerator / denominator
    return similarity


def _window_sums(values: NDArray[np.float32]) -> NDArray[np.float64]:
    margin = SSIM_WINDOW // 2
    sums = np.asarray(cv2.boxFilter(values, cv2.CV_64F, (SSIM_WINDOW, SSIM_WINDOW), normalize=False), np.float64)
    return sums[margin:-margin, margin:-margin]


def ssim_plane(real: NDArray[np.float32], generated: NDArray[np.float32], data_range: float) -> float:
    """SSIM of two float planes (height, width) with the same 7 x 7 window, for stain channels."""
    return _mean_over_strips(partial(_ssim_plane_strip, data_range), real, generated)


def _ssim_plane_strip(
    data_range: float, real: NDArray[np.float32], generated: NDArray[np.float32]
) -> NDArray[np.float64]:
    n = SSIM_WINDOW**2
    x, y = real.astype(np.float64), generated.astype(np.float64)
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = (_window_means(v) for v in (x, y, x * x, y * y, x * y))
    unbiased = n / (n - 1)
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    product, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    numerator = (2 * product + c1) * (2 * unbiased * (mean_xy - product) + c2)
    denominator = (squares + c1) * (unbiased * (mean_xx + mean_yy - squares) + c2)
    similarity: NDArray[np.float64] = numerator / denominator
    return similarity


def _window_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    margin = SSIM_WINDOW // 2
    means = np.asarray(cv2.blur(values, (SSIM_WINDOW, SSIM_WINDOW)), np.float64)
    return means[margin:-margin, margin:-margin]


def ms_ssim(real: NDArray[np.uint8], generated: NDArray[np.uint8]) -> float:
    """Multi-scale SSIM (five octaves, Gaussian window 11 px, sigma 1.5); NaN for images under 161 px a side.

    Contrast-structure of each octave and the luminance of the last, negative means clipped at 0 (torchmetrics'
    ``normalize="relu"``).
    """
    if min(real.shape[:2]) < MS_SSIM_MIN_PX:
        return math.nan
    x, y = (np.asarray(image, np.float32) / np.float32(255) for image in (real, generated))
    result = 1.0
    for octave, weight in enumerate(_MS_WEIGHTS):
        luminance, structure = _gaussian_ssim(x, y)
        last = octave == len(_MS_WEIGHTS) - 1
        result *= max(0.0, luminance if last else structure) ** weight
        x, y = _halve(x), _halve(y)
    return result


def _gaussian_ssim(x: NDArray[np.float32], y: NDArray[np.float32]) -> tuple[float, float]:
    """Mean SSIM over the reflected image, and mean contrast-structure term where the window lies inside it."""
    kernel = cv2.getGaussianKernel(_MS_WINDOW, _MS_SIGMA, cv2.CV_32F)
    margin = _MS_WINDOW // 2

    def smooth(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.sepFilter2D(values, cv2.CV_32F, kernel, kernel), np.float32)

    mean_x, mean_y = smooth(x), smooth(y)
    product, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    structure = (2 * (smooth(x * y) - product) + _K2**2) / (smooth(x * x + y * y) - squares + _K2**2)
    similarity = structure * (2 * product + _K1**2) / (squares + _K1**2)
    inner = structure[margin:-margin, margin:-margin]
    return float(similarity.mean(dtype=np.float64)), float(inner.mean(dtype=np.float64))


def _halve(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """2 x 2 means; an odd last row or column is left out, as average pooling does."""
    height, width = values.shape[0] // 2, values.shape[1] // 2
    even = values[: 2 * height, : 2 * width]
    return np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA), np.float32)
