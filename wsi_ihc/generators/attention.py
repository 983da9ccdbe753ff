"""A U-Net level with an attention gate on its skip connection (Oktay et al. 2018, arXiv 1804.03999).

The gate compares the input of the level with the output of the coarser levels, and gives every position of the input
a weight between 0 and 1. The layout of keys is that of BCI's ``attention_unet_32`` (Liu et al. 2022, arXiv 2204.11425).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class AttentionBlock(nn.Module):
    """``[W(a(x, g) * x), f(x)]`` along the channels, where ``g`` is the output of the coarser block inside ``f``.

    Args:
        layers: layers of ``f``: the way down, the coarser block, the way up. None may change its input in place.
        outer: channels of ``x``.
        inner: channels at half the resolution; the coarser block returns twice as many.
    """

    def __init__(self, layers: list[nn.Module], outer: int, inner: int) -> None:
        super().__init__()
        # The published network has BatchNorm here, whatever norm its other layers have.
        self.W = nn.Sequential(nn.Conv2d(outer, outer, 1), nn.BatchNorm2d(outer))
        self.theta = nn.Conv2d(outer, outer, 2, stride=2, bias=False)
        self.phi = nn.Conv2d(2 * inner, outer, 1)
        self.psi = nn.Conv2d(outer, 1, 1)
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, outer, h, w)`` to ``(n, 2 * outer, h, w)``; both sides even."""
        down, up = self.ways()
        coarse: Tensor = down(x)
        return self.join(self.W(self.gated(x, coarse)), up(coarse))

    def ways(self) -> tuple[nn.Sequential, nn.Sequential]:
        """The layers down to the coarser block and that block, and the layers up again."""
        layers = list(self.model)
        after = 1 + max(index for index, layer in enumerate(layers) if hasattr(layer, "model"))
        return nn.Sequential(*layers[:after]), nn.Sequential(*layers[after:])

    def gated(self, x: Tensor, coarse: Tensor) -> Tensor:
        """``x`` weighted by the gate, ``(n, outer, h, w)``; ``coarse`` is ``(n, 2 * inner, h / 2, w / 2)``."""
        weight = torch.sigmoid(self.psi(functional.relu(self.theta(x) + self.phi(coarse))))
        return functional.interpolate(weight, scale_factor=2.0, mode="bilinear", align_corners=False) * x

    @staticmethod
    def join(across: Tensor, inner: Tensor) -> Tensor:
        """The gated skip connection and the output of the way up, along the channels."""
        return torch.cat((across, inner), dim=1)
