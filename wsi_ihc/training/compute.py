"""Where and in which arithmetic the networks run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from wsi_ihc.generators.processor import this_processor
from wsi_ihc.training.config import ComputeSettings


@dataclass(frozen=True, slots=True)
class Compute:
    """The settings, resolved for one device."""

    device: torch.device
    dtype: torch.dtype
    """Of convolutions; weights, losses and averages stay float32."""
    layout: torch.memory_format
    compile: bool

    @classmethod
    def on(cls, device: torch.device, settings: ComputeSettings) -> Compute:
        """What ``settings`` mean on this device."""
        layout = torch.channels_last if settings.channels_last else torch.contiguous_format
        return cls(device, training_dtype(settings.precision, device), layout, settings.compile)

    @property
    def scales_gradients(self) -> bool:
        """Whether small gradients would vanish: in float16 only."""
        return self.dtype == torch.float16

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def send(self, images: Tensor) -> Tensor:
        """Images to the device, without waiting for the copy."""
        if self.device.type == "cuda":
            images = images.pin_memory()
        return images.to(self.device, non_blocking=True, memory_format=self.layout)

    def forward_of(self, network: nn.Module) -> Callable[..., Tensor]:
        """The network as a function, compiled if wanted."""
        return cast(Callable[..., Tensor], torch.compile(network) if self.compile else network)


def training_dtype(precision: str, device: torch.device) -> torch.dtype:
    """``auto`` is bfloat16 where it is multiplied in hardware: with the range of float32 no gradient overflows."""
    if precision != "auto":
        return cast(torch.dtype, getattr(torch, precision))
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else this_processor().multiplies_bfloat16
    return torch.bfloat16 if fast else torch.float32
