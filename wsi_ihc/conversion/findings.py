"""Findings: what is found out once about a slide before its first block, and kept in the store for every later run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from wsi_ihc.config import ConversionSettings
from wsi_ihc.conversion.calibration_windows import read_calibration_windows
from wsi_ihc.conversion.glass import SIDE_PX, slide_glass, stained_glass
from wsi_ihc.conversion.progress import Progress
from wsi_ihc.conversion.staining import load_stainer
from wsi_ihc.conversion.store import TileStore
from wsi_ihc.errors import UnsupportedSlideError
from wsi_ihc.generators import NormStatistics
from wsi_ihc.generators.calibration import pool_statistics
from wsi_ihc.generators.device import choose_device
from wsi_ihc.generators.receptive_field import measure_alignment
from wsi_ihc.pyramid.codecs import WHITE, Colour
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.slides import SlideView
from wsi_ihc.tissue import TissueMask, find_tissue


@dataclass(frozen=True)
class Findings:
    """Where tissue is, and how it looks to the generator."""

    mask: TissueMask
    statistics: NormStatistics | None
    """Statistics of the norm layers; None for a generator that is not calibrated on the slide."""

    @classmethod
    def kept_in(cls, store: TileStore, size: Size) -> Findings | None:
        """The findings of an earlier run on a plane of ``size``; None where they are absent or damaged."""
        tissue, statistics = store.finding("tissue"), store.finding("statistics")
        if tissue is None or statistics is None:
            return None
        try:
            told = tuple(map(str, json.loads(tissue["notices"].tobytes())))
            mask = TissueMask(_mask_pixels(tissue["pixels"], size), _downsample(tissue["downsample"]), size, told)
            return cls(mask, NormStatistics.from_arrays(statistics) if statistics else None)
        except (KeyError, ValueError, TypeError):
            return None

    def to_arrays(self) -> dict[str, dict[str, NDArray[Any]]]:
        """For the store, by name."""
        return {
            "tissue": {
                "pixels": self.mask.pixels,
                "downsample": np.array(self.mask.downsample),
                "notices": np.frombuffer(json.dumps(self.mask.notices).encode(), np.uint8),
            },
            "statistics": self.statistics.to_arrays() if self.statistics else {},
        }


def find(
    source: Path, view: SlideView, network: nn.Module, mode: str, settings: ConversionSettings, progress: Progress
) -> Findings:
    """Finds the tissue, and the statistics of its windows where the generator is calibrated.

    Raises:
        UnsupportedSlideError: there is no tissue.
    """
    progress.stage("finding tissue")
    mask = find_tissue(view, settings.tissue)
    if not mask.pixels.any():
        raise UnsupportedSlideError(
            f"{source}: no tissue found; check the slide, give the tissue with --tissue FILE.geojson, "
            "or stain everything with --tissue none"
        )
    if mode != "calibrated":
        return Findings(mask, None)
    progress.stage("calibrating")
    side = -(-settings.generator.calibration_px // measure_alignment(network)) * measure_alignment(network)
    sample = read_calibration_windows(view, mask, count=settings.generator.calibration_tiles, side_px=side)
    # Computed here, also when workers elsewhere stain the blocks: the device of the settings may exist only there.
    device = "auto" if settings.compute.scheduler else settings.compute.device
    return Findings(mask, pool_statistics(network, sample, device=choose_device(device)))


def find_glass(view: SlideView, findings: Findings, settings: ConversionSettings, align_px: int) -> Colour:
    """The colour that the generator gives to the slide's glass, equal on every device; white where all is tissue."""
    if findings.mask.pixels.all():
        return WHITE
    plain = settings.compute.model_copy(update={"device": "cpu", "precision": "float32", "backend": "torch"})
    stainer = load_stainer(settings.model_copy(update={"compute": plain}), findings.statistics)
    return stained_glass(stainer, slide_glass(view, findings.mask), -(-SIDE_PX // align_px) * align_px)


def _mask_pixels(pixels: NDArray[Any], size: Size) -> NDArray[np.bool_]:
    if pixels.ndim != 2 or pixels.dtype != np.bool_ or not 0 < pixels.size <= 4 * size.height * size.width:
        raise ValueError("no mask of this slide")
    return pixels


def _downsample(value: NDArray[Any]) -> float:
    number = float(value)
    if not 0 < number < 1e6:
        raise ValueError("no scale of a mask")
    return number
