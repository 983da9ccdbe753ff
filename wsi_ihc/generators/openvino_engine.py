"""Runs the graph with OpenVINO: compiled for this processor, a third faster than torch on processors with AMX."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Collection
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_ihc.errors import DeviceError
from wsi_ihc.generators.core_network import CoreNetwork

_ARITHMETIC = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
_CAPABILITIES = {torch.float32: "FP32", torch.bfloat16: "BF16", torch.float16: "FP16"}


def openvino_is_installed() -> bool:
    """Whether OpenVINO is installed; it is not imported, which takes half a second."""
    return find_spec("openvino") is not None


class OpenVinoEngine:
    """Runs a float32 ``CoreNetwork`` on the CPU in the arithmetic of ``dtype``; one call at a time.

    Each shape of windows is compiled once, in one or two seconds.

    Args:
        core: the graph; its weights stay float32.
        dtype: format of the arithmetic: float32, bfloat16 or float16.
        window_px: side of a square window for tracing; it must be large enough for the graph, and small is fast.

    Raises:
        DeviceError: OpenVINO is not installed, or has no such arithmetic on this processor.
    """

    def __init__(self, core: CoreNetwork, dtype: torch.dtype, window_px: int) -> None:
        openvino = _import_openvino()
        self._runtime = openvino.Core()
        require_arithmetic(dtype, self._runtime.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        self._settings = {
            "INFERENCE_PRECISION_HINT": _ARITHMETIC[dtype],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        example = torch.zeros(1, window_px, window_px, 3, dtype=torch.uint8)
        with warnings.catch_warnings():
            # OpenVINO traces the network with a function that torch deprecates; the warning is not for users.
            warnings.simplefilter("ignore")
            self._model = openvino.convert_model(core, example_input=example)
        self._requests: dict[tuple[int, ...], Any] = {}

    def __call__(self, windows: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """``(n, h, w, 3)`` uint8 to the cores, uint8."""
        if windows.shape not in self._requests:
            self._model.reshape(list(windows.shape))
            compiled = self._runtime.compile_model(self._model, "CPU", self._settings)
            self._requests[windows.shape] = compiled.create_infer_request()
        request = self._requests[windows.shape]
        request.infer([np.ascontiguousarray(windows)], share_inputs=True)
        # The next call overwrites the memory of the request.
        cores: NDArray[np.uint8] = request.get_output_tensor().data.copy()
        return cores


def require_arithmetic(dtype: torch.dtype, capabilities: Collection[str]) -> None:
    """Refuses a ``dtype`` that OpenVINO does not list as a capability: it would compute in float32 silently.

    Raises:
        DeviceError: no such arithmetic on this processor.
    """
    if _CAPABILITIES[dtype] not in capabilities:
        name = str(dtype).removeprefix("torch.")
        raise DeviceError(f"precision {name}: OpenVINO cannot on this processor; use --backend torch or float32")


def _import_openvino() -> Any:
    # On import OpenVINO sends usage data to its makers, unless this module is missing. No data about the work of a
    # laboratory may leave the machine.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise DeviceError(f"backend openvino: {error}; pip install 'wsi-ihc[openvino]', or --backend torch") from None
    return openvino
