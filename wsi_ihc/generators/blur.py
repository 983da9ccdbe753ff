"""Halving and doubling with a small binomial blur: no aliasing and no checkerboard.

Zhang 2019 (arXiv 1904.11486), with the filters and borders of the antialiased resnets of CUT (Park et al. 2020, arXiv
2007.15651): 1 2 1 and a reflected border on the way down, 1 3 3 1 and a repeated border on the way up.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def binomial(taps: int) -> Tensor:
    """The ``(taps, taps)`` binomial filter, float32, whose weights add up to 1."""
    row = torch.ones(1)
    for _ in range(taps - 1):
        row = functional.pad(row, (0, 1)) + functional.pad(row, (1, 0))
    filter_ = torch.outer(row, row)
    return filter_ / filter_.sum()


class BlurDown(nn.Module):
    """Half the height and width: a 3x3 binomial blur, then every second pixel."""

    stride = (2, 2)
    """Named as in a convolution: the alignment of a network is the product of its strides."""

    def __init__(self) -> None:
        super().__init__()
        # A constant, not a weight: it stays out of the state dict.
        self.register_buffer("filter", binomial(3)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, c, h, w)`` to ``(n, c, h / 2, w / 2)``; both sides even."""
        channels = x.shape[1]
        assert isinstance(self.filter, Tensor)
        weight = self.filter.expand(channels, 1, 3, 3)
        return functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode="reflect"), weight, stride=2, groups=channels)


class BlurUp(nn.Upsample):
    """Twice the height and width. The 4x4 binomial blur between inserted zeros is bilinear interpolation, exactly."""

    def __init__(self) -> None:
        super().__init__(scale_factor=2, mode="bilinear", align_corners=False)
