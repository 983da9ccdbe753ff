"""How far the two images of a pair seem moved against each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np

from wsi_ihc.training.densities import DAB, EOSIN, HAEMATOXYLIN, Densities, optical_density, unit
from wsi_ihc.training.examples import Image

_SHIFT_SIDE = 256
_DOUBTFUL_PEAK = 0.06
"""Unrelated images reach 0.05 by chance; consecutive sections 0.05 to 0.12, one section stained twice 0.2 and more."""
_DOUBTFUL_SHIFT = 0.10
"""Share of the side. BCI's usual 10 to 50 px of 1024 are half of that."""


@dataclass(frozen=True, slots=True)
class Shift:
    """How far one image of a pair seems moved against the other, pixels, and how clearly (correlation peak, 0 to 1)."""

    down: float
    right: float
    peak: float
    side: int

    @property
    def doubtful(self) -> bool:
        """Nowhere alike, or alike only far away."""
        return self.peak < _DOUBTFUL_PEAK or max(abs(self.down), abs(self.right)) > _DOUBTFUL_SHIFT * self.side


def misalignment(he: Image, ihc: Image) -> Shift:
    """Phase correlation of the nuclear stain, which both images share, at 256 pixels a side.

    The sign of the correlation does not count: multiplex pictures show nuclei light on dark.
    """
    side = min(he.shape[:2])
    top, left = (he.shape[0] - side) // 2, (he.shape[1] - side) // 2
    window = cv2.createHanningWindow((_SHIFT_SIDE, _SHIFT_SIDE), cv2.CV_32F)
    spectra = []
    for image, other_stain in ((he, EOSIN), (ihc, DAB)):
        nuclei = _nuclei(np.ascontiguousarray(image[top : top + side, left : left + side]), other_stain)
        spectra.append(np.fft.rfft2(nuclei * window))
    product = np.conj(spectra[0]) * spectra[1]
    surface = np.fft.irfft2(product / np.maximum(np.abs(product), 1e-9), s=(_SHIFT_SIDE, _SHIFT_SIDE))
    # The peak of a shift between pixels spreads over its neighbours: a blur gathers it, 1 for identical images.
    height = 2 * np.pi * cv2.GaussianBlur(np.pad(surface, 4, mode="wrap"), (9, 9), 1)[4:-4, 4:-4]
    down, right = np.unravel_index(int(np.abs(height).argmax()), height.shape)
    signed = [int(place) - _SHIFT_SIDE * (place >= _SHIFT_SIDE // 2) for place in (down, right)]
    factor = side / _SHIFT_SIDE
    return Shift(signed[0] * factor, signed[1] * factor, float(np.abs(height[down, right])), side)


def _nuclei(image: Image, other_stain: Densities) -> Densities:
    """Haematoxylin of a square image as it differs from its surroundings, ``(256, 256)``.

    Slow changes of the background would correlate wherever they are.
    """
    small = cast(Image, cv2.resize(image, (_SHIFT_SIDE, _SHIFT_SIDE), interpolation=cv2.INTER_AREA))
    separate = np.linalg.pinv(np.stack([HAEMATOXYLIN, unit(other_stain)]))[:, 0]
    amount = np.maximum(optical_density(small) @ separate.astype(np.float32), 0)
    band: Densities = cv2.GaussianBlur(amount, (0, 0), 1.5) - cv2.GaussianBlur(amount, (0, 0), 9)
    return band
