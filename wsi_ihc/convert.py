"""A conversion from an H&E slide to a virtual IHC pyramid: the only module that knows every stage."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from wsi_ihc.config import ConversionSettings
from wsi_ihc.conversion.account import RunAccount
from wsi_ihc.conversion.executors import Executor, run_dask
from wsi_ihc.conversion.measured import MeasuredLayer
from wsi_ihc.conversion.opened import opened_slide
from wsi_ihc.conversion.plan import ConversionPlan
from wsi_ihc.conversion.preparation import Prepared, prepare
from wsi_ihc.conversion.progress import Progress, Silence
from wsi_ihc.conversion.request import Request
from wsi_ihc.conversion.staining import Staining
from wsi_ihc.conversion.store import TileStore
from wsi_ihc.conversion.workspace import Workspace, occupied
from wsi_ihc.errors import SettingsError, StorageError, UnreadableSlideError
from wsi_ihc.machine.processors import processors
from wsi_ihc.machine.stopwatch import Stopwatch, peak_memory_mb
from wsi_ihc.output.finishing import check_output, name_output
from wsi_ihc.output.provenance import Provenance, read_sidecar, write_sidecar
from wsi_ihc.pyramid.layers import STAINED
from wsi_ihc.slides.notices import Notice

_COMPLETE = "complete"
"""Kept in the store when the file is complete and checked, just before it gets its name."""


@dataclass(frozen=True)
class ConversionReport:
    """The output of one slide, and how it was made."""

    output: Path
    plan: ConversionPlan
    provenance: Provenance
    run: RunAccount
    """Seconds by stage, peak memory, device and notices; the sidecar holds them too. They are those of the run that
    wrote the output, also when this one only removed what that run had left behind."""


@dataclass(frozen=True)
class ConversionEstimate:
    """Work and cost of a conversion, extrapolated from one batch that was stained."""

    plan: ConversionPlan
    provenance: Provenance
    batch_s: float
    overhead_s: float
    peak_memory_mb: float
    notices: tuple[Notice, ...]

    @property
    def seconds(self) -> float:
        """Estimated wall seconds of the whole conversion."""
        return self.overhead_s + self.batch_s * len(self.plan.batches)


def convert_slide(
    slide: str | Path,
    output: str | Path,
    settings: ConversionSettings = ConversionSettings(),
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    executor: Executor = run_dask,
    layers: Sequence[MeasuredLayer] = (),
) -> ConversionReport:
    """Stains ``slide`` and writes the pyramid ``output``, with a JSON of the same name beside it.

    The suffix of ``output`` says in which format. ``layers`` are measured beside the stain and written with it.
    The output's name appears only when the file is complete and checked. The same call continues a run that was cut
    off; with other settings, another generator or a changed slide it starts from the beginning and says so. Peak
    memory does not depend on the size of the slide.

    Raises:
        WsiIhcError: one of its members (see ``wsi_ihc.errors``), naming the file, what was seen and what to do.
    """
    source, progress, watch = Path(slide), progress or Silence(), Stopwatch()
    names = (STAINED, *(each.layer.name for each in layers))
    workspace = Workspace.around(Path(output), source, names, overwrite=overwrite)
    if workspace.name.sidecar == Path(settings.tissue.source).absolute():
        raise SettingsError(
            f"{settings.tissue.source}: the output's sidecar would replace it; choose another output name"
        )
    with workspace.locked() as doubts:
        progress.stage("opening")
        with watch.stage("prepare"):
            request = Request.of(settings, tuple(layers), workspace.form)
            with opened_slide(source, request) as opened:
                prepared = prepare(opened, request, workspace.name.store, progress)
        store = TileStore.attach(workspace.name.store)
        prepared = replace(prepared, notices=(*prepared.notices, *doubts))
        written = workspace.output.exists() and not overwrite
        if written and store.load_json(_COMPLETE) is not True:
            raise occupied(workspace.output)
        if not written:
            _stain(prepared, store, executor, progress, watch)
            _write(prepared, store, workspace, progress, watch)
            _check_identity(prepared, workspace)
            _finish(prepared, store, workspace, progress, watch)
        run = _told(workspace, prepared, watch)
        workspace.discard()
    return ConversionReport(workspace.output, prepared.plan, prepared.provenance, run)


def estimate_conversion(
    slide: str | Path, settings: ConversionSettings = ConversionSettings(), *, progress: Progress | None = None
) -> ConversionEstimate:
    """Plans the conversion of ``slide`` and stains one batch of it to measure the time; writes nothing.

    It measures on this machine, also when a cluster is to do the conversion.

    Raises:
        WsiIhcError: what ``convert_slide`` would raise before its first block.
    """
    source, progress = Path(slide), progress or Silence()
    settings = settings.model_copy(update={"compute": settings.compute.model_copy(update={"scheduler": None})})
    started = time.perf_counter()
    request = Request.of(settings)
    with tempfile.TemporaryDirectory(prefix="wsi-ihc-") as folder:
        with opened_slide(source, request) as opened:
            prepared = prepare(opened, request, Path(folder) / "blocks.zarr", progress)
        progress.stage("measuring one batch")
        with closing(Staining.open(prepared.job)) as staining:
            middle = prepared.plan.batches[len(prepared.plan.batches) // 2]
            # The first pass also pays for what a run pays once.
            staining.stain(middle)
            overhead = time.perf_counter() - started
            report = staining.stain(middle)
    # Reading and encoding spread over the cores; the generator already uses all of them.
    batch_s = report.stain_s + (report.read_s + report.encode_s) / processors()
    return ConversionEstimate(prepared.plan, prepared.provenance, batch_s, overhead, peak_memory_mb(), prepared.notices)


def _stain(prepared: Prepared, store: TileStore, executor: Executor, progress: Progress, watch: Stopwatch) -> None:
    """Runs every batch that has an unfinished block. ``stain`` is wall time; its parts are summed over threads."""
    finished = store.finished()
    waiting = [batch for batch in prepared.plan.batches if not finished.issuperset(batch)]
    unfinished = sum(len(batch) for batch in waiting)
    progress.stage("staining")
    progress.start(prepared.plan.blocks - unfinished, prepared.plan.blocks, prepared.plan.grid.core_px**2 / 1e6)
    if not waiting:
        return
    with watch.stage("stain"):
        for report in executor(prepared.job, waiting):
            progress.advance(report.blocks)
            watch.add("stain: read", report.read_s)
            watch.add("stain: generator", report.stain_s)
            watch.add("stain: encode", report.encode_s)


def _write(prepared: Prepared, store: TileStore, workspace: Workspace, progress: Progress, watch: Stopwatch) -> None:
    """Writes the complete output under its temporary name.

    Raises:
        StorageError: blocks have vanished from the store, which would have become glass.
    """
    progress.stage("writing")
    with watch.stage("write"):
        with store.finished_pyramids() as pyramids:
            workspace.form.write(pyramids, workspace.fresh_part(), prepared.provenance)
    finished = store.finished()
    if gone := prepared.plan.blocks - sum(len(finished.intersection(batch)) for batch in prepared.plan.batches):
        raise StorageError(
            f"{store.path}: {gone} of {prepared.plan.blocks} blocks have vanished; run the same command again, "
            "it makes them again"
        )


def _check_identity(prepared: Prepared, workspace: Workspace) -> None:
    """Discards all blocks when the slide is no longer the one that was read: they may mix two slides.

    Raises:
        UnreadableSlideError: it is another one.
    """
    if not prepared.identity.is_kept():
        workspace.discard()
        raise UnreadableSlideError(
            f"{prepared.identity.path}: changed while it was read; run the same command again, it starts from the "
            "beginning"
        )


def _finish(prepared: Prepared, store: TileStore, workspace: Workspace, progress: Progress, watch: Stopwatch) -> None:
    """Checks the files, writes the sidecar, and only then gives the files their names."""
    form, part, output = workspace.form, workspace.name.part, workspace.output
    progress.stage("checking")
    with watch.stage("check"):
        check_output(form, part, workspace.layers)
    account = _account(prepared, watch)
    write_sidecar(part, prepared.provenance, account.to_json(), output=output)
    # A run that is killed from here on has nothing left to do but to give the file its name.
    store.save_json(_COMPLETE, True)
    name_output(form, part, output, workspace.layers)


def _account(prepared: Prepared, watch: Stopwatch) -> RunAccount:
    return RunAccount(
        seconds=watch.rounded(),
        peak_memory_mb=peak_memory_mb(),
        blocks=prepared.plan.blocks,
        megapixels=round(prepared.plan.megapixels, 3),
        core_px=prepared.plan.grid.core_px,
        device=prepared.provenance.device,
        notices=prepared.notices,
    )


def _told(workspace: Workspace, prepared: Prepared, watch: Stopwatch) -> RunAccount:
    """The account in the sidecar; this run's own where the sidecar is gone or damaged."""
    try:
        return RunAccount.from_json(read_sidecar(workspace.output).get("run"))
    except ValueError:
        return _account(prepared, watch)
