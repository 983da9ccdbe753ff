"""The whole path, from an H&E slide to a virtual IHC pyramid. The only module that knows every stage."""

from __future__ import annotations

import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_ihc.config import ConversionSettings
from wsi_ihc.conversion.executors import run_dask
from wsi_ihc.conversion.plan import ConversionPlan
from wsi_ihc.conversion.preparation import Prepared, opened_view, prepare
from wsi_ihc.conversion.progress import Progress, Silence
from wsi_ihc.conversion.staining import Staining
from wsi_ihc.conversion.store import TileStore
from wsi_ihc.conversion.workspace import Workspace
from wsi_ihc.errors import SettingsError, StorageError, UnreadableSlideError
from wsi_ihc.generators import load_generator
from wsi_ihc.machine.processors import processors
from wsi_ihc.machine.stopwatch import Stopwatch, peak_memory_mb
from wsi_ihc.output.ometiff import Provenance, finish_ome_tiff, sidecar_path, write_ome_tiff, write_sidecar
from wsi_ihc.pyramid.layers import STAINED
from wsi_ihc.slides.files import source_digest

_COMPLETE = "complete"
"""Kept in the store once the file is whole and checked, just before it gets its name."""


@dataclass(frozen=True)
class ConversionReport:
    """What became of one slide."""

    output: Path
    plan: ConversionPlan
    provenance: Provenance
    run: dict[str, Any]
    """What differs from run to run: seconds by stage, peak memory, device, notices. The sidecar holds it too."""


@dataclass(frozen=True)
class ConversionEstimate:
    """What a conversion would do and cost, measured on one block that was really stained."""

    plan: ConversionPlan
    provenance: Provenance
    batch_s: float
    overhead_s: float
    peak_memory_mb: float
    notices: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Of the whole conversion, roughly."""
        return self.overhead_s + self.batch_s * len(self.plan.batches)


def convert_slide(
    slide: str | Path,
    output: str | Path,
    settings: ConversionSettings = ConversionSettings(),
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ConversionReport:
    """Stains ``slide`` and writes the pyramid ``output``, an OME-TIFF, with a JSON of the same name beside it.

    The output's name appears only when the file is complete and checked. A run that was cut off is continued by the
    same call; one with other settings, another generator or a changed slide starts afresh and says so. Peak memory
    does not depend on the size of the slide.

    Raises:
        WsiIhcError: one of its members (see ``wsi_ihc.errors``), naming the file, what was seen and what to do.
    """
    source, progress, watch = Path(slide), progress or Silence(), Stopwatch()
    workspace = Workspace.around(Path(output), source, overwrite=overwrite)
    if sidecar_path(workspace.output) == Path(settings.tissue.source).absolute():
        raise SettingsError(
            f"{settings.tissue.source}: the output's sidecar would replace it; choose another output name"
        )
    with workspace.locked():
        progress.stage("opening")
        with watch.stage("prepare"):
            bundle = load_generator(settings.generator.name)
            with opened_view(source, settings, bundle.card) as (view, notices):
                prepared = prepare(source, view, bundle, settings, workspace.store, progress)
        store = TileStore.attach(workspace.store)
        written = workspace.output.exists() and not overwrite
        if written and not store.load_json(_COMPLETE):
            raise workspace.occupied()
        run: dict[str, Any] = {}
        if not written:
            _stain(prepared, store, progress, watch)
            run = _write(prepared, notices, store, workspace, progress, watch)
        workspace.discard()
    return ConversionReport(workspace.output, prepared.plan, prepared.provenance, run)


def estimate_conversion(
    slide: str | Path, settings: ConversionSettings = ConversionSettings(), *, progress: Progress | None = None
) -> ConversionEstimate:
    """Plans the conversion of ``slide`` and stains one batch of it to measure the time; writes nothing.

    On this machine, also where a cluster is to do it.

    Raises:
        WsiIhcError: what ``convert_slide`` would raise before its first block.
    """
    source, progress = Path(slide), progress or Silence()
    settings = settings.model_copy(update={"compute": settings.compute.model_copy(update={"scheduler": None})})
    started = time.perf_counter()
    bundle = load_generator(settings.generator.name)
    with tempfile.TemporaryDirectory(prefix="wsi-ihc-") as folder:
        with opened_view(source, settings, bundle.card) as (view, notices):
            prepared = prepare(source, view, bundle, settings, Path(folder) / "blocks.zarr", progress)
        progress.stage("measuring one batch")
        with closing(Staining.open(prepared.job)) as staining:
            middle = prepared.plan.batches[len(prepared.plan.batches) // 2]
            # The first pass also pays for what a run pays once.
            staining.stain(middle)
            overhead = time.perf_counter() - started
            report = staining.stain(middle)
    # Reading and encoding spread over the cores; the generator already uses all of them.
    batch_s = report.stain_s + (report.read_s + report.encode_s) / processors()
    return ConversionEstimate(prepared.plan, prepared.provenance, batch_s, overhead, peak_memory_mb(), notices)


def _stain(prepared: Prepared, store: TileStore, progress: Progress, watch: Stopwatch) -> None:
    """Runs every batch that has an unfinished block. ``stain`` is wall time; its parts are summed over threads."""
    finished = store.finished()
    waiting = [batch for batch in prepared.plan.batches if not finished.issuperset(batch)]
    unfinished = sum(len(batch) for batch in waiting)
    progress.stage("staining")
    progress.start(prepared.plan.blocks - unfinished, prepared.plan.blocks, prepared.plan.grid.core_px**2 / 1e6)
    if not waiting:
        return
    with watch.stage("stain"):
        for report in run_dask(prepared.job, waiting):
            progress.advance(report.blocks)
            watch.add("stain: read", report.read_s)
            watch.add("stain: generator", report.stain_s)
            watch.add("stain: encode", report.encode_s)


def _check_whole(prepared: Prepared, store: TileStore) -> None:
    """What was written is the whole of one slide.

    Raises:
        StorageError: blocks have vanished from the store, which would have become glass.
        UnreadableSlideError: another slide lies under the name, of which some blocks may be.
    """
    source, finished = prepared.job.source, store.finished()
    if gone := prepared.plan.blocks - sum(len(finished.intersection(batch)) for batch in prepared.plan.batches):
        raise StorageError(
            f"{store.path}: {gone} of {prepared.plan.blocks} blocks have vanished; run the same command again, "
            "it makes them anew"
        )
    # A slide that is gone by now was there while it was read.
    if source.exists() and source_digest(source) != prepared.source_digest:
        raise UnreadableSlideError(
            f"{source}: has changed while it was read; run the same command again, it starts afresh"
        )


def _write(
    prepared: Prepared,
    notices: tuple[str, ...],
    store: TileStore,
    workspace: Workspace,
    progress: Progress,
    watch: Stopwatch,
) -> dict[str, Any]:
    """Writes the file and the sidecar, checks the file, and only then gives it its name; returns the run's account."""
    progress.stage("writing")
    with watch.stage("write"):
        with store.finished_pyramids() as pyramids:
            write_ome_tiff(pyramids[STAINED], workspace.part, prepared.provenance)
        _check_whole(prepared, store)
    run = {
        "seconds": watch.rounded(),
        "peak_memory_mb": peak_memory_mb(),
        "blocks": prepared.plan.blocks,
        "megapixels": round(prepared.plan.megapixels, 3),
        "notices": list(notices),
    }
    write_sidecar(workspace.part, prepared.provenance, run, output=workspace.output)
    # A run that is killed from here on has nothing left to do but to check the file and give it its name.
    store.save_json(_COMPLETE, True)
    progress.stage("checking")
    finish_ome_tiff(workspace.part, workspace.output)
    return run
