"""Keeps a GPU busy: copies and arithmetic overlap, and one call launches the whole network."""

from __future__ import annotations

import logging
import threading

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsi_ihc.generators.core_network import CoreNetwork
from wsi_ihc.generators.fusion import fuse_rectifiers

logger = logging.getLogger(__name__)

_TOLERATED = 3
"""Largest difference between the fast and the plain path, grey levels: kernels round in a different order."""


class CudaEngine:
    """Runs a ``CoreNetwork`` on one GPU; two or three threads that call at once keep it busy.

    Each thread has pinned buffers and a stream for its copies. All arithmetic goes through one stream, in the order in
    which windows arrive, so one set of activations is enough. When a shape of windows comes for the second time, its
    pass is recorded as a CUDA graph, and replayed after that.

    The fast path (rectifiers fused into convolutions) is compared with plain torch on the first windows. Where they
    disagree or the driver refuses, plain torch is used, with a warning; the same holds for graphs. The choice depends
    only on the device.

    Memory bound: the activations of one batch, for each shape that repeats; uint8 windows and cores of every thread.
    """

    def __init__(self, core: CoreNetwork, device: torch.device) -> None:
        self._device = device
        self._plain = core
        self._pass: nn.Module | None = None
        self._arithmetic = torch.cuda.Stream(device)
        self._order = threading.Lock()
        self._local = threading.local()
        self._met: set[tuple[int, ...]] = set()
        self._recordings: dict[tuple[int, ...], _Recording] = {}
        self._may_record = True

    def __call__(self, windows: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """``(n, h, w, 3)`` uint8 to the cores, uint8.

        Raises:
            torch.cuda.OutOfMemoryError: the batch is too large for the device.
        """
        with torch.cuda.device(self._device), torch.inference_mode():
            lane = self._lane()
            with torch.cuda.stream(lane.stream):
                uploaded = lane.upload(windows, self._device)
                arrived = lane.stream.record_event()
            with self._order, torch.cuda.stream(self._arithmetic):
                self._arithmetic.wait_event(arrived)
                uploaded.record_stream(self._arithmetic)
                # Kernels are chosen by rule, not by trial: a resumed run gets the same bits. float32 is never TF32.
                with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
                    cores = self._compute(uploaded)
                computed = self._arithmetic.record_event()
            with torch.cuda.stream(lane.stream):
                lane.stream.wait_event(computed)
                cores.record_stream(lane.stream)
                return lane.download(cores)

    def _lane(self) -> _Lane:
        if not hasattr(self._local, "lane"):
            self._local.lane = _Lane(torch.cuda.Stream(self._device))
        lane: _Lane = self._local.lane
        return lane

    def _compute(self, windows: Tensor) -> Tensor:
        if self._pass is None:
            self._pass = self._checked_pass(windows)
        shape = tuple(windows.shape)
        if shape in self._met and self._may_record and shape not in self._recordings:
            self._record(shape, windows)
        self._met.add(shape)
        recording = self._recordings.get(shape)
        cores: Tensor = recording.replay(windows) if recording else self._pass(windows)
        return cores

    def _checked_pass(self, windows: Tensor) -> nn.Module:
        """The pass with the fused network, where its result is that of the plain one."""
        expected = self._plain(windows)
        try:
            fused = fuse_rectifiers(self._plain)
            difference = int((fused(windows).int() - expected.int()).abs().max())
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            logger.warning("%s: fused convolutions are not available, plain ones are used (%s)", *self._failure(error))
            return self._plain
        if difference > _TOLERATED:
            logger.warning(
                "%s: fused convolutions are off by %d grey levels, plain ones are used", self._device, difference
            )
            return self._plain
        return fused

    def _record(self, shape: tuple[int, ...], windows: Tensor) -> None:
        assert self._pass is not None
        try:
            self._recordings[shape] = _Recording(self._pass, windows, self._arithmetic)
        except RuntimeError as error:
            # Also where memory is short: a recording has memory of its own; without it the pass may still fit.
            self._may_record = False
            logger.warning("%s: no CUDA graphs, every kernel is launched by itself (%s)", *self._failure(error))

    def _failure(self, error: RuntimeError) -> tuple[str, str]:
        return str(self._device), str(error).partition("\n")[0]


class _Lane:
    """One thread's copies to and from the device, in pinned memory: other copies would wait for all other work."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self.stream = stream
        self._outgoing: Tensor | None = None
        self._incoming: Tensor | None = None

    def upload(self, windows: NDArray[np.uint8], device: torch.device) -> Tensor:
        self._outgoing = _pinned(self._outgoing, windows.shape)
        self._outgoing.copy_(torch.from_numpy(windows))
        return self._outgoing.to(device, non_blocking=True)

    def download(self, cores: Tensor) -> NDArray[np.uint8]:
        self._incoming = _pinned(self._incoming, cores.shape)
        self._incoming.copy_(cores, non_blocking=True)
        self.stream.synchronize()
        # The pinned memory is overwritten by this thread's next batch.
        pixels: NDArray[np.uint8] = self._incoming.numpy().copy()
        return pixels


def _pinned(buffer: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    """``buffer`` if it has the shape, else a new one in pinned memory."""
    if buffer is not None and buffer.shape == shape:
        return buffer
    return torch.empty(shape, dtype=torch.uint8, pin_memory=torch.cuda.is_available())


class _Recording:
    """One pass of a network for one shape, replayed as a whole."""

    def __init__(self, network: nn.Module, windows: Tensor, stream: torch.cuda.Stream) -> None:
        self._windows = windows.clone()
        self._graph = torch.cuda.CUDAGraph()
        # Other threads continue with their copies.
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._cores: Tensor = network(self._windows)

    def replay(self, windows: Tensor) -> Tensor:
        self._windows.copy_(windows)
        self._graph.replay()
        return self._cores.clone()
