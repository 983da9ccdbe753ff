"""Preparation of a conversion: everything that must be known before the first block is stained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wsi_ihc.config import ConversionSettings
from wsi_ihc.conversion.account import refuse_doubts
from wsi_ihc.conversion.choices import Choices
from wsi_ihc.conversion.computation import Computation
from wsi_ihc.conversion.identity import SlideIdentity
from wsi_ihc.conversion.opened import OpenedSlide
from wsi_ihc.conversion.plan import ConversionPlan, plan_conversion
from wsi_ihc.conversion.progress import Progress
from wsi_ihc.conversion.request import Request
from wsi_ihc.conversion.resumption import choose_batch_size, choose_threads, continue_or_begin
from wsi_ihc.conversion.staining import StainingJob
from wsi_ihc.conversion.statement import state_provenance
from wsi_ihc.output.provenance import Provenance
from wsi_ihc.slides.notices import Notice


@dataclass(frozen=True)
class Prepared:
    """Everything that the executors and the writer need."""

    job: StainingJob
    plan: ConversionPlan
    provenance: Provenance
    identity: SlideIdentity
    """The slide as it was found."""
    notices: tuple[Notice, ...]


def prepare(slide: OpenedSlide, request: Request, store_path: Path, progress: Progress) -> Prepared:
    """Opens or begins the store at ``store_path`` and settles everything that the pixels depend on.

    The findings of an earlier run of the same settings, its batch size and its threads are taken from its store.

    Raises:
        UnsupportedSlideError: no tissue was found, or with ``checks.strict`` its outlines are doubted.
    """
    settings, view, source = request.settings, slide.view, slide.identity.path
    choices = Choices.of(request.bundle, settings)
    store, findings = continue_or_begin(slide, request, choices, store_path, progress)
    of_tissue = tuple(Notice("tissue", text) for text in findings.mask.notices)
    if settings.checks.strict:
        refuse_doubts(source, of_tissue)
    notices = (*slide.notices, *of_tissue)
    plan = plan_conversion(
        view.size,
        findings.mask,
        core_px=store.layout.core_px,
        halo_px=choices.halo_px,
        batch_size=choose_batch_size(store, request, choices),
        compression=request.stained.compression,
    )
    job = StainingJob(
        source.absolute(),
        _anywhere(settings, choices.computation),
        view.mpp,
        plan.grid,
        findings.mask,
        findings.statistics,
        store.path,
        choose_threads(store, choices),
        request.measured,
    )
    glass = store.layout.layer(request.stained.name).fill
    provenance = state_provenance(slide, request, choices, findings, glass, notices)
    return Prepared(job, plan, provenance, slide.identity, notices)


def _anywhere(settings: ConversionSettings, computation: Computation) -> ConversionSettings:
    """The same settings for a worker that runs in another folder or on another machine."""
    generator = settings.generator
    if Path(generator.name).exists():
        generator = generator.model_copy(update={"name": str(Path(generator.name).absolute())})
    return settings.model_copy(update={"generator": generator, "compute": computation.settle(settings.compute)})
