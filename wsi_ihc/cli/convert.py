"""``wsi-ihc convert``: one slide in, one virtual IHC pyramid out."""

from __future__ import annotations

import gc
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsi_ihc import RESEARCH_USE_ONLY
from wsi_ihc.cli.options import OUTPUT, SLIDE, conversion_options, conversion_settings
from wsi_ihc.cli.progress import conversion_progress
from wsi_ihc.cli.terminal import log_to_terminal, say
from wsi_ihc.machine.stopwatch import duration
from wsi_ihc.output.contents import content_bytes
from wsi_ihc.output.names import OutputName

if TYPE_CHECKING:
    from wsi_ihc.convert import ConversionEstimate, ConversionReport
    from wsi_ihc.generators import GeneratorCard


@click.command()
@click.argument("slide", type=SLIDE)
@click.option("-o", "--output", type=OUTPUT, metavar="OUT.ome.tiff", help="Default: SLIDE_ihc.ome.tiff here.")
@conversion_options
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be done and what it would cost; write nothing.")
@click.option("--report", "with_report", is_flag=True, help="Also write a page about the output, OUT.html.")
@click.option("--thumbnail", type=OUTPUT, hidden=True, help="Also write a small picture of SLIDE there; for batch.")
@click.option("-q", "--quiet", is_flag=True, help="Nothing but errors.")
@click.option("-v", "--verbose", is_flag=True, help="Also what reader, level and settings were chosen, and why.")
def convert(
    slide: Path,
    output: Path | None,
    overwrite: bool,
    dry_run: bool,
    with_report: bool,
    thumbnail: Path | None,
    quiet: bool,
    verbose: bool,
    **values: Any,
) -> None:
    """Stain the H&E slide SLIDE and write the virtual IHC pyramid, ready for QuPath.

    A run that was cut off continues when the same command is given again.

    \b
    wsi-ihc convert slide.svs -o slide_ihc.ome.tiff
    wsi-ihc convert slide.svs --generator mymodel --device cuda --dry-run
    """
    settings = conversion_settings(values)
    # Threads of the generator that spin while they wait take the cores from reading, encoding and their neighbours.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    log_to_terminal(logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING)
    with conversion_progress(quiet) as progress:  # on a terminal the bar shows before torch is imported
        # Imported objects live as long as the process: they are kept out of garbage collection.
        gc.disable()
        from wsi_ihc.convert import convert_slide, estimate_conversion
        from wsi_ihc.generators import keep_memory_flat, load_generator, tune_allocator
        from wsi_ihc.generators.networks import LEARNED_KINDS

        gc.freeze()
        gc.enable()
        card = load_generator(settings.generator.name).card
        if card.architecture.kind in LEARNED_KINDS:
            tune_allocator()
        else:
            keep_memory_flat()
        if dry_run:
            estimate = estimate_conversion(slide, settings, progress=progress)
        else:
            target = output or OutputName.of_slide(slide, Path()).path
            report = convert_slide(slide, target, settings, overwrite=overwrite, progress=progress)
    if dry_run:
        _show_estimate(estimate)
        return
    if not quiet:
        _show_report(report, card)
    if thumbnail:
        from wsi_ihc.batch.thumbnails import keep_slide_thumbnail

        keep_slide_thumbnail(slide, settings.slide, thumbnail)
    if with_report:
        from wsi_ihc.cli.report import report_after_conversion

        report_after_conversion(slide, report.output, quiet=quiet)


def _show_estimate(estimate: ConversionEstimate) -> None:
    plan, made = estimate.plan, estimate.provenance
    rows = {
        "working plane": f"{plan.size.width} x {plan.size.height} px at {made.mpp:.4g} um/px",
        "read from": f"level {made.level} by {made.reader}",
        "tissue": f"{plan.tissue_fraction:.1%}",
        "blocks": f"{plan.blocks} of {len(plan.grid)}, {plan.grid.core_px} px and {plan.grid.halo_px} px halo",
        "generator": f"{made.generator}, normalisation {made.normalisation}, {made.precision} on {made.device}",
        "memory": f"{estimate.peak_memory_mb:.0f} MB",
        "output": f"about {plan.output_bytes / 1e6:.0f} MB",
        "time": f"about {duration(estimate.seconds)}",
    }
    for name, value in rows.items():
        say(f"{name:<14} {value}")
    for notice in estimate.notices:
        say(f"{'note':<14} {notice}")


def _show_report(report: ConversionReport, card: GeneratorCard) -> None:
    made = report.provenance
    size = content_bytes(report.output)
    say(
        f"{report.output}: {report.plan.size.width} x {report.plan.size.height} px at {made.mpp:.4g} um/px, "
        f"{made.generator}, tissue {report.plan.tissue_fraction:.1%}, {size / 1e6:.1f} MB, "
        f"{duration(report.run.total_s)}"
    )
    say(f"{RESEARCH_USE_ONLY} {standing(card)}".rstrip())


def standing(card: GeneratorCard) -> str:
    """One sentence on the standing of the generator, from its card; empty where the card does not say."""
    match card.evidence:
        case "demonstration":
            return f"{card.name} is a demonstration, learnt from drawings: no evidence of {card.stain.split()[0]}."
        case "nothing learnt":
            return f"{card.name} has learnt nothing and shows no antigen."
        case "real tissue":
            return f"{card.name} was measured on real tissue: wsi-ihc weights show {card.name}"
        case "not stated":
            unknown = f"The licence of {card.name}'s weights is unknown; find it out before you share the output."
            return unknown if card.licence == "unknown" else ""
