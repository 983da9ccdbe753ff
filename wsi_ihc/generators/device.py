"""The device, number format and engine of a generator."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Literal

import torch

from wsi_ihc.errors import DeviceError
from wsi_ihc.generators.processor import Processor, this_processor

Backend = Literal["torch", "openvino"]
Graph = Literal["pixelwise", "folded", "by_window"]
"""Kind of computation: a built-in generator on single pixels, a network with norm layers folded into its convolutions,
or a network whose norm layers take the statistics of each window."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str) -> torch.device:
    """The device for ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:INDEX``.

    Raises:
        DeviceError: the machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"device {name}: expected auto, cpu, cuda or cuda:INDEX") from None
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= found:
            raise DeviceError(f"device {name}: {found} CUDA devices found; use --device cpu or another index")
    elif device.type != "cpu":
        raise DeviceError(f"device {name}: expected auto, cpu, cuda or cuda:INDEX")
    return device


def choose_dtype(precision: str, device: torch.device, processor: Processor | None = None) -> torch.dtype:
    """The number format. ``auto``: float16 on a GPU, bfloat16 on a CPU that multiplies it in hardware, else float32.

    ``processor`` is that of this machine by default.

    Raises:
        DeviceError: an unknown name.
    """
    if precision == "auto":
        if device.type == "cuda":
            return torch.float16
        return torch.bfloat16 if (processor or this_processor()).multiplies_bfloat16 else torch.float32
    if precision not in _DTYPES:
        raise DeviceError(f"precision {precision}: expected auto, {', '.join(_DTYPES)}")
    return _DTYPES[precision]


def choose_backend(
    name: str, device: torch.device, dtype: torch.dtype, graph: Graph, processor: Processor | None = None
) -> Backend:
    """The engine that runs a generator. ``auto``: OpenVINO where it is installed and faster, else torch.

    It is faster where AMX multiplies ``dtype`` and the graph has only convolutions: it takes about three quarters of
    torch's time. Elsewhere both take the same time, and torch starts sooner.

    Raises:
        DeviceError: OpenVINO on a GPU, a graph that crashes OpenVINO, or an unknown name.
    """
    match name:
        case "auto" | "openvino" if graph == "pixelwise":
            return "torch"  # the few uint8 operations of the built-in generators are exact, and fast enough
        case "auto":
            return "openvino" if _openvino_gains(device, dtype, graph, processor or this_processor()) else "torch"
        case "openvino" if device.type != "cpu":
            raise DeviceError(
                f"backend openvino: runs on the cpu, not on {device}; use --device cpu or --backend torch"
            )
        case "openvino" if dtype == torch.float32 and graph == "by_window":
            # OpenVINO 2026.4.1 ends in a segmentation fault when it compiles this on a processor with AMX.
            raise DeviceError(
                "backend openvino: crashes on some processors in float32 with norm layers that are not folded; "
                "use --backend torch, --precision bfloat16 or --normalisation calibrated"
            )
        case "torch" | "openvino":
            return name
    raise DeviceError(f"backend {name}: expected auto, torch or openvino")


def _openvino_gains(device: torch.device, dtype: torch.dtype, graph: Graph, processor: Processor) -> bool:
    return device.type == "cpu" and graph == "folded" and processor.openvino and processor.has_tiles_for(dtype)


def describe_device(device: torch.device) -> str:
    """The name of the GPU or processor, for provenance."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
