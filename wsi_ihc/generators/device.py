"""Where a generator runs, and in which number format."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import Literal

import torch

from wsi_ihc.errors import DeviceError
from wsi_ihc.generators.openvino_engine import openvino_is_installed

Backend = Literal["torch", "openvino"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str) -> torch.device:
    """``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:INDEX``.

    Raises:
        DeviceError: if that device is not there.
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


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """``auto``: float16 on a GPU, bfloat16 on a CPU that multiplies it in hardware, else float32.

    Raises:
        DeviceError: for any other name.
    """
    if precision == "auto":
        if device.type == "cuda":
            return torch.float16
        return torch.bfloat16 if cpu_multiplies_bfloat16() else torch.float32
    if precision not in _DTYPES:
        raise DeviceError(f"precision {precision}: expected auto, {', '.join(_DTYPES)}")
    return _DTYPES[precision]


def choose_backend(name: str, device: torch.device, *, learned: bool) -> Backend:
    """What runs a generator. ``auto``: OpenVINO where it is installed and the processor has AMX.

    There it takes about three quarters of torch's time. On other processors the two are level, and torch starts sooner.

    Raises:
        DeviceError: for OpenVINO on a GPU, or any other name.
    """
    match name:
        case "auto" | "openvino" if not learned:
            return "torch"  # the built-ins' few operations on uint8 are exact, and as fast as they get
        case "auto":
            pays = device.type == "cpu" and "amx_bf16" in processor_features() and openvino_is_installed()
            return "openvino" if pays else "torch"
        case "openvino" if device.type != "cpu":
            raise DeviceError(
                f"backend openvino: runs on the cpu, not on {device}; use --device cpu or --backend torch"
            )
        case "torch" | "openvino":
            return name
    raise DeviceError(f"backend {name}: expected auto, torch or openvino")


def cpu_multiplies_bfloat16() -> bool:
    """Whether this processor has bfloat16 dot products (AMX or AVX-512 BF16; on ARM, BF16).

    Without them bfloat16 is emulated and slower than float32.
    """
    return not {"amx_bf16", "avx512_bf16", "bf16"}.isdisjoint(processor_features())


@cache
def processor_features() -> frozenset[str]:
    """As Linux names them; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.split() for line in lines if line.lower().startswith(("flags", "features"))), ()))


def describe_device(device: torch.device) -> str:
    """The processor's own name, for provenance."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
