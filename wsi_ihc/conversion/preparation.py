"""Everything that is settled before the first block is stained: plane, tissue, statistics, plan, store."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from wsi_ihc.config import ConversionSettings
from wsi_ihc.conversion.block_size import USUAL_CORE_PX, MemoryBudget, choose_core_px
from wsi_ihc.conversion.calibration_windows import read_calibration_windows
from wsi_ihc.conversion.computation import Computation
from wsi_ihc.conversion.glass import SIDE_PX, slide_glass, stained_glass
from wsi_ihc.conversion.plan import ConversionPlan, plan_conversion
from wsi_ihc.conversion.progress import Progress
from wsi_ihc.conversion.staining import StainingJob, load_stainer
from wsi_ihc.conversion.store import StaleStoreError, StoreLayout, TileStore
from wsi_ihc.errors import SettingsError, UnsupportedSlideError
from wsi_ihc.generators import Architecture, Bundle, GeneratorCard, NormStatistics, resolve_mode
from wsi_ihc.generators.calibration import pool_statistics
from wsi_ihc.generators.device import Graph, choose_device
from wsi_ihc.generators.networks import LEARNED_KINDS
from wsi_ihc.generators.normalisation import Mode
from wsi_ihc.generators.receptive_field import measure_alignment, measure_halo
from wsi_ihc.output.provenance import Provenance
from wsi_ihc.pyramid.codecs import WHITE, Colour
from wsi_ihc.pyramid.layers import STAINED, Layer
from wsi_ihc.slides import SlideView, check_brightfield, open_slide
from wsi_ihc.slides.files import source_digest
from wsi_ihc.tissue import TissueMask, find_tissue

logger = logging.getLogger(__name__)

_LARGEST_KEPT = 1 << 16
"""No batch and no machine is larger; a number above comes from a damaged file."""


@dataclass(frozen=True)
class Prepared:
    """What the executors and the writer need."""

    job: StainingJob
    plan: ConversionPlan
    provenance: Provenance
    source_digest: str
    """Of the slide as it was found."""


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
    halo_px, align_px = choose_halo(network, settings), measure_alignment(network)
    architecture = bundle.card.architecture
    mode = resolve_mode(network, settings.generator.normalisation)
    computation = Computation.at_work(settings.compute, _graph(architecture, mode))
    fingerprint = _fingerprint(source, bundle, settings, halo_px, computation.recorded)
    budget = MemoryBudget.of(settings.compute, architecture, computation)

    any_core = settings.tiling.core_px == "auto"
    core_px = USUAL_CORE_PX if settings.tiling.core_px == "auto" else settings.tiling.core_px
    layer = Layer(STAINED, settings.output.compression, settings.output.quality)
    layout = StoreLayout(view.size, core_px, (layer,), view.mpp)
    store = _earlier_store(store_path, layout, fingerprint, any_core=any_core)
    findings = _Findings.kept_in(store, view) if store else None
    if store is None or findings is None:
        findings = _find(source, view, network, mode, settings, progress)
        if any_core and mode != "tile":
            chosen = choose_core_px(architecture, findings.mask, halo_px=halo_px, align_px=align_px, budget=budget)
            layout = replace(layout, core_px=chosen)
        if architecture.kind in LEARNED_KINDS:
            layout = replace(layout, layers=(replace(layer, fill=_glass(view, findings, settings, align_px)),))
        store = TileStore.create(store_path, layout, fingerprint, findings.to_arrays())
    core_px = store.layout.core_px
    batch_size = _kept_batch_size(store, settings, computation, budget, core_px + 2 * halo_px)
    mask = findings.mask
    plan = plan_conversion(
        view.size, mask, core_px=core_px, halo_px=halo_px, batch_size=batch_size, compression=layer.compression
    )
    anywhere = _anywhere(settings, computation)
    threads = _kept_number(store, "threads", lambda: computation.threads)
    job = StainingJob(source.absolute(), anywhere, view.mpp, plan.grid, mask, findings.statistics, store.path, threads)
    glass = store.layout.layer(STAINED).fill
    provenance = _provenance(source, view, bundle.card, settings, job, mode, glass, computation.recorded)
    return Prepared(job, plan, provenance, fingerprint["source"])


def _graph(architecture: Architecture, mode: Mode) -> Graph:
    """What is left to run once the norm layers are fixed."""
    if architecture.kind not in LEARNED_KINDS:
        return "pixelwise"
    return "by_window" if mode == "tile" else "folded"


def choose_halo(network: nn.Module, settings: ConversionSettings) -> int:
    """The network's own reach, unless the settings say otherwise; a multiple of its alignment.

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


def _earlier_store(path: Path, layout: StoreLayout, fingerprint: dict[str, Any], *, any_core: bool) -> TileStore | None:
    """The store of an earlier run when it was made from the same things; says why not."""
    try:
        return TileStore.open(path, layout, fingerprint, any_core=any_core)
    except FileNotFoundError:
        return None
    except StaleStoreError as stale:
        logger.warning("starting afresh: %s", "; ".join(stale.differences))
        return None


def _fingerprint(
    source: Path, bundle: Bundle, settings: ConversionSettings, halo_px: int, computation: dict[str, str]
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
        "version": version("wsi-ihc"),
        **computation,
    }


def _anywhere(settings: ConversionSettings, computation: Computation) -> ConversionSettings:
    """The same settings for a worker that stands in another folder, on another machine."""
    generator = settings.generator
    if Path(generator.name).exists():
        generator = generator.model_copy(update={"name": str(Path(generator.name).absolute())})
    return settings.model_copy(update={"generator": generator, "compute": computation.settle(settings.compute)})


def _file_digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None  # find_tissue says what is wrong with it


@dataclass(frozen=True)
class _Findings:
    """What is found out once for a slide, before its first block, and kept in the store."""

    mask: TissueMask
    statistics: NormStatistics | None
    """Of a generator that is calibrated."""

    @classmethod
    def kept_in(cls, store: TileStore, view: SlideView) -> _Findings | None:
        """What an earlier run has found; None where a power cut has taken it."""
        tissue, statistics = store.finding("tissue"), store.finding("statistics")
        if tissue is None or statistics is None:
            return None
        mask = TissueMask(tissue["pixels"], float(tissue["downsample"]), view.size)
        return cls(mask, NormStatistics.from_arrays(statistics) if statistics else None)

    def to_arrays(self) -> dict[str, dict[str, NDArray[Any]]]:
        """For the store, by name."""
        return {
            "tissue": {"pixels": self.mask.pixels, "downsample": np.array(self.mask.downsample)},
            "statistics": self.statistics.to_arrays() if self.statistics else {},
        }


def _find(
    source: Path, view: SlideView, network: nn.Module, mode: str, settings: ConversionSettings, progress: Progress
) -> _Findings:
    """Tissue, and the statistics of its windows where the generator wants them.

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
        return _Findings(mask, None)
    progress.stage("calibrating")
    side = -(-settings.generator.calibration_px // measure_alignment(network)) * measure_alignment(network)
    sample = read_calibration_windows(view, mask, count=settings.generator.calibration_tiles, side_px=side)
    # Done here, also when the blocks are stained elsewhere: the device of the settings may be there only.
    device = "auto" if settings.compute.scheduler else settings.compute.device
    return _Findings(mask, pool_statistics(network, sample, device=choose_device(device)))


def _glass(view: SlideView, findings: _Findings, settings: ConversionSettings, align_px: int) -> Colour:
    """The colour that the generator gives to the slide's glass, the same on every device; white where there is none."""
    if findings.mask.pixels.all():
        return WHITE
    plain = settings.compute.model_copy(update={"device": "cpu", "precision": "float32", "backend": "torch"})
    stainer = load_stainer(settings.model_copy(update={"compute": plain}), findings.statistics)
    return stained_glass(stainer, slide_glass(view, findings.mask), -(-SIDE_PX // align_px) * align_px)


def _kept_batch_size(
    store: TileStore, settings: ConversionSettings, computation: Computation, budget: MemoryBudget, window_px: int
) -> int:
    """The batch size of the settings, or for ``auto`` what fits; the choice of an earlier run stays."""
    if settings.compute.batch_size != "auto":
        return settings.compute.batch_size
    # On a processor a batch gains 2 to 5 %, and a larger window more for the same memory.
    fits = partial(budget.batch, window_px) if computation.device != "cpu" else lambda: 1
    return _kept_number(store, "batch_size", fits)


def _kept_number(store: TileStore, name: str, choose: Callable[[], int]) -> int:
    """The number that an earlier run of this store chose, else a new choice, which is kept."""
    kept = store.load_json(name)
    if type(kept) is int and 0 < kept <= _LARGEST_KEPT:
        return kept
    chosen = choose()
    store.save_json(name, chosen)
    return chosen


def _provenance(
    source: Path,
    view: SlideView,
    card: GeneratorCard,
    settings: ConversionSettings,
    job: StainingJob,
    mode: str,
    glass: Colour,
    computation: dict[str, str],
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
        glass=f"#{bytes(glass).hex()}",
        halo_px=job.grid.halo_px,
        device=computation["device"],
        precision=computation["precision"],
        backend=computation["backend"],
        compression=settings.output.compression,
        quality=settings.output.quality if settings.output.compression == "jpeg" else None,
        versions={name: version(name) for name in ("wsi-ihc", "torch", computation["backend"])},
    )


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
