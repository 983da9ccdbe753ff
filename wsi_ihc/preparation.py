"""Everything that is settled before the first block is stained: plane, tissue, statistics, plan, store."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from wsi_ihc.calibration import read_calibration_windows
from wsi_ihc.config import ConversionSettings
from wsi_ihc.errors import SettingsError, UnsupportedSlideError
from wsi_ihc.generators import Bundle, GeneratorCard, NormStatistics, resolve_mode
from wsi_ihc.generators.calibration import pool_statistics
from wsi_ihc.generators.device import choose_device, choose_dtype
from wsi_ihc.generators.receptive_field import measure_alignment, measure_halo
from wsi_ihc.ometiff import Provenance
from wsi_ihc.plan import ConversionPlan, plan_conversion
from wsi_ihc.progress import Progress
from wsi_ihc.slides import SlideView, check_brightfield, open_slide
from wsi_ihc.source_identity import source_digest
from wsi_ihc.staining import StainingJob
from wsi_ihc.store import StaleStoreError, StoreLayout, TileStore
from wsi_ihc.tissue import TissueMask, find_tissue

logger = logging.getLogger(__name__)

_BYTES_PER_PIXEL = 700
"""Device memory that a full-size generator takes for a window's pixel in half precision."""


@dataclass(frozen=True)
class Prepared:
    """What the executors and the writer need."""

    job: StainingJob
    plan: ConversionPlan
    provenance: Provenance


@contextmanager
def opened_view(
    source: Path, settings: ConversionSettings, card: GeneratorCard
) -> Generator[tuple[SlideView, tuple[str, ...]]]:
    """The slide at the generator's resolution, or at the one that the settings ask for, and what a user should know.

    Raises:
        SlideError: the slide cannot be read, is no brightfield slide, or its pixel size is unknown or too coarse.
    """
    with closing(open_slide(source, settings.slide)) as slide:
        notices = (*slide.notices, *check_brightfield(slide))
        for notice in notices:
            logger.warning("%s", notice)
        wanted = settings.resolution.mpp or card.mpp
        view = SlideView.at(slide, wanted, tolerance=settings.resolution.tolerance)
        if view.mpp is None:
            # A generator for any resolution does not need it; whoever measures on the output does.
            SlideView.at(slide, 0.5)
        logger.info("%s reads level %d of %s, %s px", slide.name, view.level, source.name, view.size)
        yield view, notices


def prepare(
    source: Path,
    view: SlideView,
    bundle: Bundle,
    settings: ConversionSettings,
    store_path: Path,
    progress: Progress,
) -> Prepared:
    """Opens or begins the store at ``store_path`` and settles everything that the pixels depend on.

    What an earlier run of the same settings has found out (tissue, statistics, batch size) is taken from its store.

    Raises:
        UnsupportedSlideError: no tissue was found.
    """
    network = bundle.build()
    halo_px, core_px = choose_halo(network, settings), settings.tiling.core_px
    device = choose_device(settings.compute.device)
    precision = str(choose_dtype(settings.compute.precision, device)).removeprefix("torch.")
    fingerprint = _fingerprint(source, bundle, settings, halo_px, device.type, precision)
    layout = StoreLayout(view.size, core_px, settings.output.compression, settings.output.quality)
    store = open_store(store_path, layout, fingerprint)

    progress.stage("finding tissue")
    mask = _kept_mask(store, view, settings)
    if not mask.pixels.any():
        raise UnsupportedSlideError(
            f"{source}: no tissue found; check the slide, give the tissue with --tissue FILE.geojson, "
            "or stain everything with --tissue none"
        )
    mode = resolve_mode(network, settings.generator.normalisation)
    statistics = None
    if mode == "calibrated":
        progress.stage("calibrating")
        statistics = _kept_statistics(store, network, view, mask, settings, device)
    batch_size = _kept_batch_size(store, settings, device, core_px + 2 * halo_px)
    plan = plan_conversion(
        view.size, mask, core_px=core_px, halo_px=halo_px, batch_size=batch_size, compression=layout.compression
    )
    job = StainingJob(source.absolute(), _anywhere(settings), view.mpp, plan.grid, mask, statistics, store.path)
    provenance = _provenance(source, view, bundle.card, settings, job, mode, device.type, precision)
    return Prepared(job, plan, provenance)


def choose_halo(network: nn.Module, settings: ConversionSettings) -> int:
    """The network's own reach, unless the settings say otherwise; a multiple of its alignment.

    Raises:
        SettingsError: the settings' halo or core does not fit the network's alignment.
    """
    align = measure_alignment(network)
    if settings.tiling.core_px % align:
        raise SettingsError(f"tiling.core_px={settings.tiling.core_px}: this generator needs a multiple of {align}")
    halo = settings.tiling.halo_px
    if halo is None:
        return measure_halo(network)
    if halo % align:
        raise SettingsError(f"tiling.halo_px={halo}: this generator needs a multiple of {align}")
    return halo


def open_store(path: Path, layout: StoreLayout, fingerprint: dict[str, Any]) -> TileStore:
    """The store of an earlier run when it was made from the same things, else an empty one; says why it starts anew."""
    try:
        return TileStore.open(path, layout, fingerprint)
    except FileNotFoundError:
        pass
    except StaleStoreError as stale:
        logger.warning("starting afresh: %s", "; ".join(stale.differences))
    return TileStore.create(path, layout, fingerprint)


def _fingerprint(
    source: Path, bundle: Bundle, settings: ConversionSettings, halo_px: int, device: str, precision: str
) -> dict[str, Any]:
    """Everything that the pixels depend on. The grid is in the store's layout."""
    kept = settings.model_dump(mode="json", exclude={"compute", "tiling", "output"})
    kept["generator"] |= {"name": bundle.card.name, "sha256": bundle.card.sha256}
    if settings.tissue.source not in ("auto", "none"):
        kept["tissue"]["sha256"] = _file_digest(Path(settings.tissue.source))
    return {
        "source": source_digest(source),
        "settings": kept,
        "batch_size": settings.compute.batch_size,
        "halo_px": halo_px,
        "device": device,
        "precision": precision,
        "version": version("wsi-ihc"),
    }


def _anywhere(settings: ConversionSettings) -> ConversionSettings:
    """The same settings for a worker that stands in another folder: a bundle's path is made absolute."""
    if not Path(settings.generator.name).exists():
        return settings
    name = str(Path(settings.generator.name).absolute())
    return settings.model_copy(update={"generator": settings.generator.model_copy(update={"name": name})})


def _file_digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None  # find_tissue says what is wrong with it


def _kept_mask(store: TileStore, view: SlideView, settings: ConversionSettings) -> TissueMask:
    kept = store.load_arrays("tissue")
    if kept is not None:
        return TissueMask(kept["pixels"], float(kept["downsample"]), view.size)
    mask = find_tissue(view, settings.tissue)
    store.save_arrays("tissue", {"pixels": mask.pixels, "downsample": np.array(mask.downsample)})
    return mask


def _kept_statistics(
    store: TileStore,
    network: nn.Module,
    view: SlideView,
    mask: TissueMask,
    settings: ConversionSettings,
    device: torch.device,
) -> NormStatistics:
    kept = store.load_arrays("statistics")
    if kept is not None:
        return NormStatistics.from_arrays(kept)
    side = -(-settings.generator.calibration_px // measure_alignment(network)) * measure_alignment(network)
    sample = read_calibration_windows(view, mask, count=settings.generator.calibration_tiles, side_px=side)
    statistics = pool_statistics(network, sample, device=device)
    store.save_arrays("statistics", statistics.to_arrays())
    return statistics


def _kept_batch_size(store: TileStore, settings: ConversionSettings, device: torch.device, window_px: int) -> int:
    """The batch size of the settings, or for ``auto`` what fits; the choice of an earlier run stays."""
    if settings.compute.batch_size != "auto":
        return settings.compute.batch_size
    kept = store.load_json("batch_size")
    if kept is None:
        kept = 1
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            kept = int(np.clip(free // 2 // (window_px**2 * _BYTES_PER_PIXEL), 1, 16))
        store.save_json("batch_size", kept)
    return int(kept)


def _provenance(
    source: Path,
    view: SlideView,
    card: GeneratorCard,
    settings: ConversionSettings,
    job: StainingJob,
    mode: str,
    device: str,
    precision: str,
) -> Provenance:
    slide = view.slide
    tissue = settings.tissue.source
    assert view.mpp is not None
    return Provenance(
        source_name=source.name,
        source_width=slide.levels[0].size.width,
        source_height=slide.levels[0].size.height,
        source_mpp=slide.mpp,
        source_vendor=slide.properties.get("vendor"),
        source_objective=_number(slide.properties.get("objective")),
        source_quickhash=slide.properties.get("quickhash"),
        reader=slide.name,
        level=view.level,
        scale=view.scale,
        mpp=view.mpp,
        stain=card.stain,
        generator=card.name,
        generator_sha256=card.sha256 or None,
        normalisation=mode,
        statistics_sha256=job.statistics.sha256 if job.statistics else None,
        tissue_source=tissue if tissue in ("auto", "none") else Path(tissue).name,
        tissue_fraction=round(float(job.mask.pixels.mean()), 6),
        halo_px=job.grid.halo_px,
        device=device,
        precision=precision,
        compression=settings.output.compression,
        quality=settings.output.quality if settings.output.compression == "jpeg" else None,
        versions={"wsi-ihc": version("wsi-ihc"), "torch": torch.__version__},
    )


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
