"""Stains windows of pixels with a fixed network, on one device, in one number format."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsi_ihc.errors import DeviceError
from wsi_ihc.generators.builtin import Identity, Recolour
from wsi_ihc.generators.device import choose_device, choose_dtype, describe_device
from wsi_ihc.generators.pixels import to_pixels, to_tensor
from wsi_ihc.generators.receptive_field import measure_alignment, measure_halo
from wsi_ihc.generators.trimming import trim

logger = logging.getLogger(__name__)


class Stainer:
    """A network ready to stain: ``(n, height, width, 3)`` uint8 in, the same out.

    The pixels of a core that has ``halo_px`` of surroundings in its window do not depend on the window. Calls from
    several threads take turns, so that the device works on one batch at a time.

    Memory bound: proportional to the pixels of one batch (resnet of 64 channels: 0.6 kB per pixel in half
    precision). When the device runs out, the batch is halved from then on.

    Args:
        network: as ``fix_normalisation`` leaves it, float32.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:INDEX``.
        precision: ``auto``, ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        DeviceError: if the device is not there.
    """

    def __init__(self, network: nn.Module, *, device: str = "auto", precision: str = "auto") -> None:
        self.device = choose_device(device)
        self.dtype = choose_dtype(precision, self.device)
        self.align_px = measure_alignment(network)
        self.halo_px = measure_halo(network)
        self._network = _prepared(network, self.device, self.dtype)
        self._trimmed, self._margin = trim(self._network)
        self._turn = threading.Lock()
        self._largest_batch: int | None = None

    def __call__(self, windows: NDArray[np.uint8], *, halo_px: int = 0) -> NDArray[np.uint8]:
        """Stain windows whose sides are multiples of ``align_px``, and cut ``halo_px`` off every side.

        With the network's own halo (or more) that costs less than staining the whole window; with less, the border
        shows the network's padding.

        Raises:
            ValueError: for another shape or dtype.
            DeviceError: if a single window does not fit the device's memory.
        """
        self._check(windows, halo_px)
        if not self.fills_device:
            return self._stain(windows, halo_px)
        with self._turn:
            return np.concatenate(list(self._in_batches(windows, halo_px)))

    @property
    def fills_device(self) -> bool:
        """Whether one call takes the whole device; the pixel-wise built-ins leave room for others beside them."""
        return not isinstance(self._network, Identity | Recolour)

    def describe(self) -> dict[str, str]:
        """What a file's provenance should say about the computation."""
        return {
            "device": describe_device(self.device),
            "precision": str(self.dtype).removeprefix("torch."),
            "torch": torch.__version__,
        }

    def _in_batches(self, windows: NDArray[np.uint8], halo_px: int) -> Iterator[NDArray[np.uint8]]:
        start = 0
        while start < len(windows):
            batch = windows[start : start + (self._largest_batch or len(windows))]
            stained = self._try(batch, halo_px)
            if stained is None:
                self._halve(len(batch))
            else:
                yield stained
                start += len(batch)

    def _try(self, windows: NDArray[np.uint8], halo_px: int) -> NDArray[np.uint8] | None:
        """The stained windows, or None if they need more memory than there is."""
        try:
            return self._stain(windows, halo_px)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            return None

    @torch.inference_mode()
    def _stain(self, windows: NDArray[np.uint8], halo_px: int) -> NDArray[np.uint8]:
        pixels = torch.from_numpy(np.ascontiguousarray(windows)).to(self.device)
        if isinstance(self._network, Identity | Recolour):
            stained = self._network.stain_pixels(_cropped(pixels.movedim(-1, 1), halo_px).movedim(1, -1))
        elif halo_px >= self.halo_px:
            tensor = self._trimmed(to_tensor(pixels, self.dtype))
            stained = to_pixels(_cropped(tensor, halo_px - self._margin))
        else:
            stained = to_pixels(_cropped(self._network(to_tensor(pixels, self.dtype)), halo_px))
        result: NDArray[np.uint8] = stained.cpu().numpy()
        return result

    def _check(self, windows: NDArray[np.uint8], halo_px: int) -> None:
        if windows.dtype != np.uint8 or windows.ndim != 4 or windows.shape[-1] != 3 or not len(windows):
            raise ValueError(f"expected (n, height, width, 3) uint8, got {windows.shape} {windows.dtype}")
        height, width = windows.shape[1:3]
        if height % self.align_px or width % self.align_px:
            raise ValueError(f"sides must be multiples of {self.align_px} px, got {height} x {width}")
        if not 0 <= 2 * halo_px < min(height, width):
            raise ValueError(f"a halo of {halo_px} px leaves nothing of a window of {height} x {width}")

    def _halve(self, batch: int) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if batch == 1:
            raise DeviceError(
                f"{describe_device(self.device)}: out of memory with a single block; use a smaller tiling.core_px"
            )
        if self._largest_batch is None:
            logger.warning("%s is out of memory with %d blocks at once: halving", describe_device(self.device), batch)
        self._largest_batch = batch // 2


def _prepared(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A copy in the layout and precision that the device likes best."""
    prepared = copy.deepcopy(network).eval().requires_grad_(False)
    if isinstance(prepared, Identity | Recolour):
        return prepared.to(device)
    prepared = prepared.to(device=device, dtype=dtype)
    return prepared.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _cropped(tensor: Tensor, margin: int) -> Tensor:
    """Without ``margin`` on every side of the last two axes."""
    return tensor[..., margin : tensor.shape[-2] - margin, margin : tensor.shape[-1] - margin]


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    # The CPU allocator and the CUDA libraries raise a plain RuntimeError.
    signs = ("not enough memory", "can't allocate memory", "ALLOC_FAILED")
    return any(sign in str(error) for sign in signs)
