"""Pixels to tensors and back: the only place that defines the scale."""

from __future__ import annotations

import torch
from torch import Tensor


def to_tensor(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """``(n, height, width, 3)`` uint8 to ``(n, 3, height, width)`` in [-1, 1], channels last in memory."""
    # The arithmetic is float32 for every target: half precision is too coarse for 1 / 127.5.
    return pixels.permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1).to(dtype)


def to_pixels(tensor: Tensor) -> Tensor:
    """``(n, 3, height, width)`` in [-1, 1] to ``(n, height, width, 3)`` uint8, contiguous, rounded to nearest.

    Values outside the range are clipped.
    """
    levels = tensor.to(torch.float32, copy=True).add_(1).mul_(127.5).round_().clamp_(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
