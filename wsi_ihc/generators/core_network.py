"""A generator as a function of pixels: uint8 windows in, uint8 cores out, for every engine."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsi_ihc.generators.builtin import Identity, Recolour
from wsi_ihc.generators.pixels import to_pixels, to_tensor
from wsi_ihc.generators.trimming import trim


class CoreNetwork(nn.Module):
    """Scaling, network, cropping and rounding in one graph, so that only uint8 is copied to a device and back.

    Args:
        network: a network with fixed normalisation.
        dtype: the number format of its weights.
        halo_px: pixels that are cut off every side of a window.
        whole_halo: whether ``halo_px`` is the reach of the network or more. Then the margin on which the core does not
            depend is not computed; with a smaller halo, the border shows the padding of the network.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype, halo_px: int, *, whole_halo: bool) -> None:
        super().__init__()
        self.network, margin = trim(network) if whole_halo else (network, 0)
        self._margin = halo_px - margin
        self._dtype = dtype

    def forward(self, windows: Tensor) -> Tensor:
        """``(n, h, w, 3)`` uint8 to ``(n, h - 2 * halo_px, w - 2 * halo_px, 3)`` uint8."""
        if isinstance(self.network, Identity | Recolour):
            return self.network.stain_pixels(_cropped(windows.movedim(-1, 1), self._margin).movedim(1, -1))
        return to_pixels(_cropped(self.network(to_tensor(windows, self._dtype)), self._margin))


def _cropped(tensor: Tensor, margin: int) -> Tensor:
    """``tensor`` without ``margin`` on every side of the last two axes."""
    return tensor[..., margin : tensor.shape[-2] - margin, margin : tensor.shape[-1] - margin]
