"""Measures of the public virtual-staining benchmark, so that figures can be laid beside its table.

The benchmark (virtual-staining-benchmark, 2026) scores the centre of 256 x 256 px of each image at native resolution.
Its DAB is the third channel of scikit-image's ``rgb2hed``: natural densities over ``-log(1e-6)``, so a strong stain is
about 0.1. The two DAB figures compare one number per image, the mean over the crop.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

CROP_PX = 256
SSIM_WINDOW = 11
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def centre_crop(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle (256, 256, 3) of an image of at least that size."""
    top, left = ((side - CROP_PX) // 2 for side in image.shape[:2])
    return np.ascontiguousarray(image[top : top + CROP_PX, left : left + CROP_PX])


def box_ssim(real: NDArray[np.uint8], generated: NDArray[np.uint8]) -> float:
    """Structural similarity of 8-bit images with an 11 x 11 uniform window and the covariance of the window's pixels.

    The mean over the places where the window lies inside the image, and over channels. Equals
    ``structural_similarity(real, generated, win_size=11, use_sample_covariance=False, channel_axis=2)``.
    """
    x, y = real.astype(np.float64), generated.astype(np.float64)
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = (_window_means(values) for values in (x, y, x * x, y * y, x * y))
    product, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    similarity = (2 * product + _C1) * (2 * (mean_xy - product) + _C2)
    similarity /= (squares + _C1) * (mean_xx + mean_yy - squares + _C2)
    return float(similarity.mean())


def _window_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    margin = SSIM_WINDOW // 2
    means = np.asarray(cv2.blur(values, (SSIM_WINDOW, SSIM_WINDOW)), np.float64)
    return means[margin:-margin, margin:-margin]


def mean_dab(image: NDArray[np.uint8]) -> float:
    """Mean of the DAB channel of scikit-image's ``rgb2hed``."""
    from skimage.color import rgb2hed  # slow to import, and needed by this recipe alone

    return float(rgb2hed(image)[..., 2].mean())
