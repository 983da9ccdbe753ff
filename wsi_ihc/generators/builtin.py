"""Generators without learnt weights: ``identity`` for tests, ``recolour`` as a baseline.

Both work pixel by pixel. They take tensors, as networks do, and also uint8 pixels directly.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from wsi_ihc.machine.pixel_memory import PixelMemory
from wsi_ihc.measures.dyes import COUNTERSTAIN, DAB, EOSIN, HAEMATOXYLIN

_GLASS = 244.0
"""Grey level of empty glass on a usual scanner; brighter pixels are empty too."""
_GLASS_DENSITY = 0.02
"""Optical density up to which a pixel is glass: JPEG noise must not become a stain."""
_EOSIN_IN_RED = 0.6
"""Real eosin absorbs more red than its vector says: unmixing shows this share of it as haematoxylin."""

_PIXELS_AT_ONCE = 1 << 18
"""Pixels that are computed at a time: their intermediate values fit into the cache of a processor."""


class Identity(nn.Module):
    """Returns its input, exactly."""

    def __init__(self) -> None:
        super().__init__()
        self._memory = PixelMemory()

    def forward(self, x: Tensor) -> Tensor:
        return x

    def stain_pixels(self, pixels: Tensor) -> Tensor:
        """A copy of ``(n, h, w, 3)`` uint8."""
        if pixels.device.type != "cpu":
            return pixels.clone(memory_format=torch.contiguous_format)
        copy = self._memory.array(tuple(pixels.shape))
        np.copyto(copy, pixels.numpy())
        return torch.from_numpy(copy)


class Recolour(nn.Module):
    """Unmixes haematoxylin and eosin by optical density and paints them as a weak H-DAB.

    Nuclei become blue, cytoplasm light tan, collagen pale; glass becomes white (255). DAB appears where eosin is
    mixed with haematoxylin, so it says nothing about any antigen.

    Args:
        glass: red, green and blue of the empty glass of the slide, 0 to 255.
    """

    glass: Tensor
    unmix: Tensor
    paint: Tensor

    def __init__(self, glass: tuple[float, float, float] = (_GLASS, _GLASS, _GLASS)) -> None:
        super().__init__()
        dyes = torch.tensor([HAEMATOXYLIN, EOSIN], dtype=torch.float64)
        paints = torch.tensor([COUNTERSTAIN, DAB], dtype=torch.float64)
        self.register_buffer("glass", torch.tensor(glass, dtype=torch.float32))
        self.register_buffer("unmix", torch.linalg.pinv(_unit(dyes)).t().float().contiguous())  # (dye, rgb)
        self.register_buffer("paint", _unit(paints).t().float().contiguous())  # (rgb, paint)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3, h, w)`` to the same shape, both in [-1, 1]."""
        planes = x.movedim(1, 0)
        light = self._transmitted((planes.float() + 1).mul_(127.5).flatten(1))
        return (light * 2 - 1).to(x.dtype).view(planes.shape).movedim(0, 1)

    def stain_pixels(self, pixels: Tensor) -> Tensor:
        """``(n, h, w, 3)`` uint8 to the same shape: the result of ``forward``, rounded."""
        stained = torch.empty_like(pixels, memory_format=torch.contiguous_format)
        step = _PIXELS_AT_ONCE if pixels.device.type == "cpu" else pixels.numel()
        sources, targets = torch.split(pixels.reshape(-1, 3), step), torch.split(stained.view(-1, 3), step)
        for source, target in zip(sources, targets, strict=True):
            light = self._transmitted(source.t().contiguous().float())
            target.copy_(light.mul_(255).round_().to(torch.uint8).t())
        return stained

    def _transmitted(self, levels: Tensor) -> Tensor:
        """``(3, pixels)`` grey levels of H&E, 0 to 255, to the transmittance of the painted section, 0 to 1."""
        density = (self.glass.log()[:, None] - levels.clamp(min=1).log_()).sub_(_GLASS_DENSITY).clamp_(min=0)
        blue, eosin = (_mixed(row, density).clamp_(min=0) for row in self.unmix.tolist())
        nuclear = (blue - _EOSIN_IN_RED * eosin).clamp_(min=0)
        counterstain = 0.9 * nuclear * (0.2 + 0.8 * _smoothstep(nuclear, 0.1, 0.6))
        cellular = 0.25 + 0.75 * _smoothstep(blue, 0.1, 0.5)
        outside_nuclei = 1 - 0.7 * _smoothstep(nuclear, 0.3, 0.9)
        dab = 0.45 * (1 - torch.exp(-2 * eosin)) * cellular * outside_nuclei
        paints = torch.stack((counterstain, dab))
        return torch.stack([_mixed(row, paints) for row in self.paint.tolist()]).neg_().exp_()


def _mixed(weights: list[float], planes: Tensor) -> Tensor:
    """Weighted sum of planes; faster than a matrix product, which would wait for the threads of BLAS."""
    mixed: Tensor = planes[0] * weights[0]
    for plane, weight in zip(planes[1:], weights[1:], strict=True):
        mixed.add_(plane, alpha=weight)
    return mixed


def _unit(vectors: Tensor) -> Tensor:
    directions: Tensor = vectors / torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return directions


def _smoothstep(x: Tensor, low: float, high: float) -> Tensor:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)
