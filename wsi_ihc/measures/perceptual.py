"""Perceptual distance (LPIPS), by a network that the user brings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_ihc.errors import SettingsError, one_line
from wsi_ihc.measures.user_network import load_network

Distance = Callable[[NDArray[np.uint8], NDArray[np.uint8]], float]


def perceptual_distance(path: Path) -> Distance:
    """The distance of two images by the network at ``path`` (TorchScript or torch.export).

    The network takes two float32 batches (1, 3, height, width) in [-1, 1] and gives one number, as ``lpips.LPIPS``
    does.

    Raises:
        SettingsError: the file is no such network, or it fails on an image.
    """
    network = load_network(path)

    def distance(real: NDArray[np.uint8], generated: NDArray[np.uint8]) -> float:
        try:
            with torch.inference_mode():
                return float(network(_batch(real), _batch(generated)))
        except Exception as error:  # the user's network may raise anything
            raise SettingsError(
                f"{path}: expected one number for two batches (1, 3, h, w) in [-1, 1] ({one_line(error)[-200:]})"
            ) from None

    return distance


def _batch(image: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].float() / 127.5 - 1
