"""Preparation of a conversion before the first block is stained: the plane, the store, the plan, the provenance."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from torch import nn

from wsi_ihc.config import ConversionSettings
from wsi_ihc.conversion.account import numbered, refuse_doubts
from wsi_ihc.conversion.block_size import USUAL_CORE_PX, MemoryBudget, choose_core_px
from wsi_ihc.conversion.computation import Computation
from wsi_ihc.conversion.findings import Findings, find, find_glass
from wsi_ihc.conversion.fingerprint import Fingerprint, fingerprint, settled
from wsi_ihc.conversion.identity import SlideIdentity
from wsi_ihc.conversion.plan import ConversionPlan, plan_conversion
from wsi_ihc.conversion.progress import Progress
from wsi_ihc.conversion.staining import StainingJob
from wsi_ihc.conversion.store import StaleStoreError, StoreLayout, TileStore
from wsi_ihc.errors import SettingsError
from wsi_ihc.generators import Architecture, Bundle, GeneratorCard, resolve_mode
from wsi_ihc.generators.device import Graph
from wsi_ihc.generators.networks import LEARNED_KINDS
from wsi_ihc.generators.normalisation import Mode
from wsi_ihc.generators.receptive_field import measure_alignment, measure_halo
from wsi_ihc.output.provenance import Provenance
from wsi_ihc.pyramid.codecs import Colour
from wsi_ihc.pyramid.layers import STAINED, Layer
from wsi_ihc.slides import SlideView, check_brightfield, open_slide
from wsi_ihc.slides.notice_kinds import slide_notices
from wsi_ihc.slides.notices import Notice

logger = logging.getLogger(__name__)

_LARGEST_KEPT = 1 << 16
"""No batch and no machine is larger; a number above comes from a damaged file."""


@dataclass(frozen=True)
class Prepared:
    """Everything that the executors and the writer need."""

    job: StainingJob
    plan: ConversionPlan
    provenance: Provenance
    identity: SlideIdentity
    """The slide as it was found."""
    notices: tuple[Notice, ...]


@contextmanager
def opened_view(
    source: Path, settings: ConversionSettings, card: GeneratorCard
) -> Generator[tuple[SlideView, tuple[Notice, ...]]]:
    """The slide at the generator's resolution, or at the one that the settings ask for, and the notices about it.

    Raises:
        SlideError: the slide cannot be read, is no brightfield slide, or its pixel size is unknown or too coarse.
    """
    with closing(open_slide(source, settings.slide)) as slide:
        doubts = check_brightfield(slide, any_stain=settings.checks.any_stain)
        notices = (*slide_notices(slide), *doubts)
        for notice in notices:
            logger.warning("%s", notice)
        if settings.checks.strict:
            refuse_doubts(source, notices)
        wanted = settings.resolution.mpp or card.mpp
        view = SlideView.at(slide, wanted, tolerance=settings.resolution.tolerance)
        if view.mpp is None:
            # A generator for any resolution does not need the pixel size; measurements on the output do.
            SlideView.at(slide, 0.5)
        logger.info("%s reads level %d of %s, %s px", slide.name, view.level, source.name, view.size)
        yield view, notices


def prepare(
    identity: SlideIdentity,
    view: SlideView,
    notices: tuple[Notice, ...],
    bundle: Bundle,
    settings: ConversionSettings,
    store_path: Path,
    progress: Progress,
) -> Prepared:
    """Opens or begins the store at ``store_path`` and settles everything that the pixels depend on.

    The findings of an earlier run of the same settings, its batch size and its threads are taken from its store.

    Raises:
        UnsupportedSlideError: no tissue was found, or with ``checks.strict`` its outlines are doubted.
    """
    network = bundle.build()
    halo_px, align_px = choose_halo(network, settings), measure_alignment(network)
    architecture = bundle.card.architecture
    mode = resolve_mode(network, settings.generator.normalisation)
    computation = Computation.for_run(settings.compute, _graph(architecture, mode))
    wanted = settled(
        fingerprint(identity.digest, settings, f"{bundle.card.name} {bundle.card.sha256}"),
        halo_px=halo_px,
        batch_size=settings.compute.batch_size,
        computation=computation.recorded,
    )
    budget = MemoryBudget.of(settings.compute, architecture, computation)

    any_core = settings.tiling.core_px == "auto"
    core_px = USUAL_CORE_PX if settings.tiling.core_px == "auto" else settings.tiling.core_px
    layer = Layer(STAINED, settings.output.compression, settings.output.quality)
    layout = StoreLayout(view.size, core_px, (layer,), view.mpp)
    store = _earlier_store(store_path, layout, wanted, any_core=any_core)
    findings = Findings.kept_in(store, view.size) if store else None
    if store is None or findings is None:
        findings = find(identity.path, view, network, mode, settings, progress)
        if any_core and mode != "tile":
            chosen = choose_core_px(architecture, findings.mask, halo_px=halo_px, align_px=align_px, budget=budget)
            layout = replace(layout, core_px=chosen)
        if architecture.kind in LEARNED_KINDS:
            layout = replace(layout, layers=(replace(layer, fill=find_glass(view, findings, settings, align_px)),))
        store = TileStore.create(store_path, layout, wanted, findings.to_arrays())
    core_px = store.layout.core_px
    batch_size = _kept_batch_size(store, settings, computation, budget, core_px + 2 * halo_px)
    mask = findings.mask
    of_tissue = tuple(Notice("tissue", text) for text in mask.notices)
    if settings.checks.strict:
        refuse_doubts(identity.path, of_tissue)
    notices = (*notices, *of_tissue)
    plan = plan_conversion(
        view.size, mask, core_px=core_px, halo_px=halo_px, batch_size=batch_size, compression=layer.compression
    )
    anywhere = _anywhere(settings, computation)
    threads = _kept_number(store, "threads", lambda: computation.threads)
    job = StainingJob(
        identity.path.absolute(), anywhere, view.mpp, plan.grid, mask, findings.statistics, store.path, threads
    )
    glass = store.layout.layer(STAINED).fill
    provenance = _provenance(
        identity.path, view, bundle.card, settings, job, mode, glass, computation.recorded, notices
    )
    return Prepared(job, plan, provenance, identity, notices)


def _graph(architecture: Architecture, mode: Mode) -> Graph:
    """The kind of network that remains once the norm layers are fixed."""
    if architecture.kind not in LEARNED_KINDS:
        return "pixelwise"
    return "by_window" if mode == "tile" else "folded"


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


def _earlier_store(path: Path, layout: StoreLayout, wanted: Fingerprint, *, any_core: bool) -> TileStore | None:
    """The store of an earlier run if that had the same fingerprint; else None, and a line in the log says why."""
    try:
        return TileStore.open(path, layout, wanted, any_core=any_core)
    except FileNotFoundError:
        return None
    except StaleStoreError as stale:
        logger.warning("starting from the beginning: %s", "; ".join(stale.differences))
        return None


def _anywhere(settings: ConversionSettings, computation: Computation) -> ConversionSettings:
    """The same settings for a worker that runs in another folder or on another machine."""
    generator = settings.generator
    if Path(generator.name).exists():
        generator = generator.model_copy(update={"name": str(Path(generator.name).absolute())})
    return settings.model_copy(update={"generator": generator, "compute": computation.settle(settings.compute)})


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
    notices: tuple[Notice, ...],
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
        notices=numbered(notices),
        versions={name: version(name) for name in ("wsi-ihc", "torch", computation["backend"])},
    )


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
