"""The number formats that a processor multiplies in hardware, and its engines, as a value: tests make up others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from wsi_ihc.generators.openvino_engine import openvino_is_installed

_TILE_FEATURES = {torch.bfloat16: "amx_bf16", torch.float16: "amx_fp16"}


@dataclass(frozen=True, slots=True)
class Processor:
    """The facts on which the choice of number format and engine depends."""

    features: frozenset[str] = frozenset()
    """Features of the processor in Linux's names, such as ``amx_bf16``; empty on other systems."""
    openvino: bool = False
    """Whether OpenVINO is installed."""

    @property
    def multiplies_bfloat16(self) -> bool:
        """Whether it has bfloat16 dot products (AMX or AVX-512 BF16; on ARM, BF16).

        Without them bfloat16 is emulated and slower than float32.
        """
        return not {"amx_bf16", "avx512_bf16", "bf16"}.isdisjoint(self.features)

    def has_tiles_for(self, dtype: torch.dtype) -> bool:
        """Whether AMX multiplies ``dtype``; it never multiplies float32."""
        return _TILE_FEATURES.get(dtype) in self.features


@cache
def this_processor() -> Processor:
    """The processor of this machine."""
    return Processor(_features(), openvino_is_installed())


def _features() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.split() for line in lines if line.lower().startswith(("flags", "features"))), ()))
