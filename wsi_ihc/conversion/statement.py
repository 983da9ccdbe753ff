"""What an output states about itself: its provenance, from what a conversion was asked for and what it chose."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from wsi_ihc.conversion.account import numbered
from wsi_ihc.conversion.choices import Choices
from wsi_ihc.conversion.findings import Findings
from wsi_ihc.conversion.opened import OpenedSlide
from wsi_ihc.conversion.request import Request
from wsi_ihc.output.provenance import Provenance
from wsi_ihc.pyramid.codecs import Colour
from wsi_ihc.slides.notices import Notice


def state_provenance(
    slide: OpenedSlide,
    request: Request,
    choices: Choices,
    findings: Findings,
    glass: Colour,
    notices: Iterable[Notice],
) -> Provenance:
    """Source, generator, settings and versions; ``glass`` is the colour of what is not tissue."""
    view, reader, card, settings = slide.view, slide.view.slide, request.bundle.card, request.settings
    tissue, statistics, computation = settings.tissue.source, findings.statistics, choices.computation
    assert view.mpp is not None
    return Provenance(
        source_name=slide.identity.path.name,
        source_width=reader.levels[0].size.width,
        source_height=reader.levels[0].size.height,
        source_mpp=reader.mpp,
        source_vendor=reader.properties.get("vendor"),
        source_objective=_number(reader.properties.get("objective")),
        source_quickhash=reader.properties.get("quickhash"),
        reader=reader.name,
        level=view.level,
        scale=view.scale,
        mpp=view.mpp,
        stain=card.stain,
        generator=card.name,
        generator_sha256=card.sha256 or None,
        normalisation=choices.mode,
        statistics_sha256=statistics.sha256 if statistics else None,
        tissue_source=tissue if tissue in ("auto", "none") else Path(tissue).name,
        tissue_fraction=round(float(findings.mask.pixels.mean()), 6),
        glass=f"#{bytes(glass).hex()}",
        halo_px=choices.halo_px,
        device=computation.device,
        precision=computation.precision,
        backend=computation.backend,
        compression=request.stained.compression,
        quality=request.stained.quality if request.stained.compression == "jpeg" else None,
        notices=numbered(notices),
        versions={name: version(name) for name in ("wsi-ihc", "torch", computation.backend)},
    )


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
