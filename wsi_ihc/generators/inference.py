"""Stains windows of pixels with a network of fixed normalisation, on one device, in one number format."""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wsi_ihc.errors import DeviceError
from wsi_ihc.generators.builtin import Identity, Recolour
from wsi_ihc.generators.core_network import CoreNetwork
from wsi_ihc.generators.cuda_engine import CudaEngine
from wsi_ihc.generators.device import Graph, choose_backend, choose_device, choose_dtype, describe_device
from wsi_ihc.generators.norm_statistics import Norm
from wsi_ihc.generators.openvino_engine import OpenVinoEngine
from wsi_ihc.generators.receptive_field import measure_alignment, measure_halo

logger = logging.getLogger(__name__)

Engine = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""Returns the cores of windows; torch on a processor, a CUDA device, or OpenVINO runs it."""

_LANES = 3
"""Batches on a GPU at a time: one is copied there, one is computed, one is copied back."""


@dataclass(frozen=True, slots=True)
class Stained:
    """The stained pixels, and the seconds that they waited for the device and spent on it."""

    pixels: NDArray[np.uint8]
    wait_s: float
    stain_s: float


class Stainer:
    """A network ready to stain: ``(n, height, width, 3)`` uint8 in, the same out.

    The pixels of a core with ``halo_px`` of surroundings in its window do not depend on the window. Calls from several
    threads take turns: a processor computes one batch at a time, a GPU computes one while it copies others.

    Memory bound: proportional to the pixels of one batch (see ``window_bytes``). When the device has too little memory,
    batches are halved from then on.

    Args:
        network: as ``fix_normalisation`` leaves it, float32.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:INDEX``.
        precision: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
        backend: ``auto``, ``torch`` or ``openvino``.

    Raises:
        DeviceError: the device or the engine is not available, or does not suit the network.
    """

    def __init__(
        self, network: nn.Module, *, device: str = "auto", precision: str = "auto", backend: str = "auto"
    ) -> None:
        self.device = choose_device(device)
        self.dtype = choose_dtype(precision, self.device)
        graph = _graph(network)
        self.backend = choose_backend(backend, self.device, self.dtype, graph)
        self.align_px = measure_alignment(network)
        self.halo_px = measure_halo(network)
        self._network = _prepared(network, self.device, self.dtype if self.backend == "torch" else torch.float32)
        self._engines: dict[int, Engine] = {}
        self._building = threading.Lock()
        self._turn = _turns(self.device, pixelwise=graph == "pixelwise")
        self._largest_batch: int | None = None

    def __call__(self, windows: NDArray[np.uint8], *, halo_px: int = 0) -> NDArray[np.uint8]:
        """The pixels that ``stain`` returns."""
        return self.stain(windows, halo_px=halo_px).pixels

    def stain(self, windows: NDArray[np.uint8], *, halo_px: int = 0) -> Stained:
        """Stains windows whose sides are multiples of ``align_px``, and cuts ``halo_px`` off every side.

        With the halo of the network (or more) this costs less than the whole window; with less, the border shows the
        padding of the network.

        Raises:
            ValueError: another shape or dtype.
            DeviceError: a single window does not fit into the memory of the device.
        """
        self._check(windows, halo_px)
        engine = self._engine(halo_px)
        asked = time.perf_counter()
        with self._turn:
            admitted = time.perf_counter()
            parts = list(self._in_batches(windows, engine))
            pixels = parts[0] if len(parts) == 1 else np.concatenate(parts)
            return Stained(pixels, admitted - asked, time.perf_counter() - admitted)

    def describe(self) -> dict[str, str]:
        """Facts about the computation, for the provenance."""
        return {
            "device": describe_device(self.device),
            "precision": str(self.dtype).removeprefix("torch."),
            "backend": self.backend,
            "torch": torch.__version__,
        }

    def _engine(self, halo_px: int) -> Engine:
        with self._building:
            if halo_px not in self._engines:
                self._engines[halo_px] = self._built(halo_px)
            return self._engines[halo_px]

    def _built(self, halo_px: int) -> Engine:
        dtype = next((weight.dtype for weight in self._network.parameters()), self.dtype)
        core = CoreNetwork(self._network, dtype, halo_px, whole_halo=halo_px >= self.halo_px).eval()
        if self.backend == "openvino":
            return OpenVinoEngine(core, self.dtype, 2 * (halo_px + self.halo_px) + self.align_px)
        if self.device.type == "cuda":
            return CudaEngine(core, self.device)
        return partial(_on_processor, core)

    def _in_batches(self, windows: NDArray[np.uint8], engine: Engine) -> Iterator[NDArray[np.uint8]]:
        start = 0
        while start < len(windows):
            batch = windows[start : start + (self._largest_batch or len(windows))]
            stained = _try(engine, batch)
            if stained is None:
                self._halve(len(batch))
            else:
                yield stained
                start += len(batch)

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
        with self._building:
            if self._largest_batch is None:
                logger.warning(
                    "%s is out of memory with %d blocks at once: halving", describe_device(self.device), batch
                )
            # Threads that failed at the same time ask for the same half.
            self._largest_batch = min(self._largest_batch or batch, batch // 2)


def _graph(network: nn.Module) -> Graph:
    if isinstance(network, Identity | Recolour):
        return "pixelwise"
    by_window = any(isinstance(module, Norm | nn.GroupNorm) for module in network.modules())
    return "by_window" if by_window else "folded"


def _turns(device: torch.device, *, pixelwise: bool) -> AbstractContextManager[object]:
    """Limits the threads that use the device at once; the pixel-wise built-in generators have no limit."""
    if device.type == "cuda":
        return threading.BoundedSemaphore(_LANES)
    return nullcontext() if pixelwise else threading.Lock()


@torch.inference_mode()
def _on_processor(core: CoreNetwork, windows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    cores: NDArray[np.uint8] = core(torch.from_numpy(np.ascontiguousarray(windows))).numpy()
    return cores


def _try(engine: Engine, windows: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """The stained windows; None where they need more memory than the device has."""
    try:
        return engine(windows)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        return None


def _prepared(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A copy in the memory layout and number format that are fastest on the device."""
    prepared = copy.deepcopy(network).eval().requires_grad_(False)
    if isinstance(prepared, Identity | Recolour):
        return prepared.to(device)
    prepared = prepared.to(device=device, dtype=dtype)
    return prepared.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    # The CPU allocator and the CUDA libraries raise a plain RuntimeError.
    signs = ("not enough memory", "can't allocate memory", "ALLOC_FAILED")
    return any(sign in str(error) for sign in signs)
