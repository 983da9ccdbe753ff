"""Several processes, one training. Every process holds the same weights, buffers and averages after every step.

Gradients are averaged by hand in one exchange per network: a GAN's two networks with their several passes a step fit
badly into the wrappers made for one loss.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from wsi_ihc.generators.device import choose_device


@dataclass(frozen=True, slots=True)
class World:
    """This process among its peers."""

    device: torch.device
    rank: int = 0
    ranks: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0


def rank_and_ranks() -> tuple[int, int]:
    """What torchrun has told this process; (0, 1) without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined_world(device: str) -> Generator[World]:
    """The world for the duration of a training: joined when torchrun started us, alone otherwise.

    Raises:
        DeviceError: if the device is not there.
    """
    rank, ranks = rank_and_ranks()
    if ranks == 1:
        yield World(choose_device(device))
        return
    if device in ("auto", "cuda") and torch.cuda.is_available():
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    chosen = choose_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield World(chosen, rank, ranks)
    finally:
        dist.destroy_process_group()


def average_gradients(network: nn.Module) -> None:
    """Replace every gradient and floating-point buffer by its mean over the processes. A lone process does nothing."""
    if not dist.is_initialized():
        return
    tensors = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    average_([*tensors, *(buffer for buffer in network.buffers() if buffer.is_floating_point())])


def average_(tensors: Iterable[Tensor]) -> None:
    """Mean over the processes, in place, in one exchange."""
    tensors = list(tensors)
    flat = torch.cat([tensor.detach().float().flatten() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for tensor, mean in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.detach().copy_(mean.view_as(tensor))


def averaged(values: dict[str, float], device: torch.device) -> dict[str, float]:
    """Numbers by name, averaged over the processes."""
    if not dist.is_initialized() or not values:
        return values
    tensor = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return dict(zip(values, (tensor / dist.get_world_size()).tolist(), strict=True))
