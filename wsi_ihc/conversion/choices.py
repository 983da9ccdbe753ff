"""Choices that follow from the generator and the settings, before the slide's pixels are looked at."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from wsi_ihc.config import ConversionSettings
from wsi_ihc.conversion.block_size import MemoryBudget
from wsi_ihc.conversion.computation import Computation
from wsi_ihc.errors import SettingsError
from wsi_ihc.generators import Architecture, Bundle, resolve_mode
from wsi_ihc.generators.device import Graph
from wsi_ihc.generators.networks import LEARNED_KINDS
from wsi_ihc.generators.normalisation import Mode
from wsi_ihc.generators.receptive_field import measure_alignment, measure_halo


@dataclass(frozen=True)
class Choices:
    """What ``auto`` has become as far as the generator and the machine decide it."""

    architecture: Architecture
    network: nn.Module
    mode: Mode
    """Where the norm layers take their statistics from."""
    halo_px: int
    align_px: int
    """Sides and origins of windows are multiples of it."""
    computation: Computation
    budget: MemoryBudget

    @classmethod
    def of(cls, bundle: Bundle, settings: ConversionSettings) -> Choices:
        """Raises SettingsError, DeviceError or ClusterError where the settings ask for what is not possible."""
        architecture, network = bundle.card.architecture, bundle.build()
        halo_px, align_px = choose_halo(network, settings), measure_alignment(network)
        mode = resolve_mode(network, settings.generator.normalisation)
        computation = Computation.for_run(settings.compute, _graph(architecture, mode))
        budget = MemoryBudget.of(settings.compute, architecture, computation)
        return cls(architecture, network, mode, halo_px, align_px, computation, budget)

    @property
    def learned(self) -> bool:
        """Whether the generator learned its colours, that of glass too."""
        return self.architecture.kind in LEARNED_KINDS


def choose_halo(network: nn.Module, settings: ConversionSettings) -> int:
    """The halo of the settings, by default the reach of the network; a multiple of its alignment.

    Raises:
        SettingsError: the settings' halo or core does not fit the network's alignment.
    """
    align, core = measure_alignment(network), settings.tiling.core_px
    if core != "auto" and core % align:
        raise SettingsError(f"tiling.core_px={core}: this generator needs a multiple of {align}")
    halo = settings.tiling.halo_px
    if halo is None:
        return measure_halo(network)
    if halo % align:
        raise SettingsError(f"tiling.halo_px={halo}: this generator needs a multiple of {align}")
    return halo


def _graph(architecture: Architecture, mode: Mode) -> Graph:
    """The kind of network that remains once the norm layers are fixed."""
    if architecture.kind not in LEARNED_KINDS:
        return "pixelwise"
    return "by_window" if mode == "tile" else "folded"
