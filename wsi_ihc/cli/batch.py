"""``wsi-ihc batch``: converts a folder of slides into a folder of virtual IHC slides."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from wsi_ihc.cli.options import SLIDE, conversion_options, conversion_settings
from wsi_ihc.cli.terminal import complain, log_to_terminal, say
from wsi_ihc.errors import SettingsError
from wsi_ihc.machine.text import json_text

if TYPE_CHECKING:
    from wsi_ihc.batch import BatchOptions, Cohort, Entry, Records, SlideRecord
    from wsi_ihc.config import ConversionSettings

_Show = Literal["nothing", "lines", "json"]

LEFT_OUT = 11
"""Exit code: every slide is done, but something that could be a slide was left out."""

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.argument("slides", type=SLIDE, nargs=-1)
@click.option("-o", "--output", type=_FOLDER, required=True, metavar="OUT", help="Folder of outputs and records.")
@click.option("--recursive", is_flag=True, help="Also search the folders in the folders.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Pass over names such as '*.jpg' in folders.")
@click.option(
    "--csv",
    "table",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Columns slide, mpp, generator, output.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Slides at a time. Default: 1; 2 with --scheduler; two for each GPU.",
)
@click.option("--gpus", metavar="all|0,1", help="GPUs to use; each slide is given one of them.")
@click.option("--shard", "part", metavar="I/N", help="Only part I of N of the slides, by a hash of the name.")
@click.option("--scheduler", metavar="ADDRESS", help="Spread each slide over the workers of this dask scheduler.")
@click.option("--retry-failed", is_flag=True, help="Also retry slides that failed because of the slide itself.")
@click.option("--timeout", type=click.FloatRange(min=0.01), metavar="MIN", help="End a slide after so many minutes.")
@click.option(
    "--stall",
    type=click.FloatRange(min=0),
    metavar="MIN",
    help="End a slide without progress for so many minutes; 0: never. Default: 30; 0 with --scheduler.",
)
@click.option(
    "--slide-memory",
    metavar="SIZE",
    help="End a slide that takes more memory, such as 8GB; 0: never. Default: 90% of the machine, shared by --jobs.",
)
@click.option("--cache", type=_FOLDER, metavar="DIR", help="Copy slides ahead to this fast local disk.")
@click.option(
    "--cache-size",
    type=click.FloatRange(min=0.001),
    metavar="GB",
    help="Limit of --cache. Default: half the free space.",
)
@click.option("--no-space-check", is_flag=True, help="Start although the disk looks too small.")
@conversion_options
@click.option("--overwrite", is_flag=True, help="Replace outputs that no batch has made.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be done with each slide; write nothing.")
@click.option("--no-report", is_flag=True, help="Do not write a page about each output, OUT/NAME.html.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON at the end.")
@click.option("-q", "--quiet", is_flag=True, help="Nothing but errors.")
def batch(
    slides: tuple[Path, ...], output: Path, recursive: bool, exclude: tuple[str, ...], table: Path | None,
    jobs: int | None, gpus: str | None, part: str | None, scheduler: str | None, retry_failed: bool,
    timeout: float | None, stall: float | None, slide_memory: str | None, cache: Path | None,
    cache_size: float | None, no_space_check: bool, overwrite: bool, dry_run: bool, no_report: bool,
    as_json: bool, quiet: bool, **values: Any,
) -> int:  # fmt: skip
    """Stain SLIDES, files or folders of them, into the folder OUT. The same command again continues.

    Every slide is tried, each in a process of its own. Slides that are done are skipped; changed settings or a changed
    generator are noticed. OUT/index.html shows the result of each slide.

    \b
    Exit status: 0 all slides are done and nothing was left out, 1 slides failed,
    11 all are done, but something in the folders that could be a slide was left out.

    \b
    wsi-ihc batch slides/ -o stained/
    wsi-ihc batch slides/ --recursive -o stained/ --gpus all --generator mymodel
    wsi-ihc status stained/
    """
    log_to_terminal(logging.ERROR if quiet else logging.WARNING)
    from wsi_ihc.batch import BatchOptions, Limits, Records, gather
    from wsi_ihc.batch.limits import STALL_S, default_memory

    settings = _spread(conversion_settings(values), scheduler)
    spread = settings.compute.scheduler is not None
    options = BatchOptions(
        gpus=_gpus(gpus, settings),
        retry_failed=retry_failed,
        overwrite=overwrite,
        strict=settings.checks.strict,
        cache=cache,
        cache_bytes=int(cache_size * 1e9) if cache_size else None,
        # While one slide is prepared or written, the workers of a cluster have another to stain.
        jobs=jobs or (2 if spread and not gpus else None),
    )
    stall_s = (0.0 if spread else STALL_S) if stall is None else stall * 60
    memory = default_memory(options.at_once) if slide_memory is None else _bytes(slide_memory)
    options = replace(options, limits=Limits(timeout * 60 if timeout else None, stall_s or None, memory or None))
    _refuse_with_scheduler(settings, options)
    ours = Records(output).outputs()
    cohort = gather(slides, settings, table=table, recursive=recursive, exclude=exclude, folder=output, leave_out=ours)
    if part:
        cohort = cohort.shard(*_part(part))
    if dry_run:
        return _preview(cohort, output, options)
    _preflight(cohort.entries, output, options, no_space_check)
    given = [*map(str, slides), str(table), str(recursive), *exclude]
    show: _Show = "nothing" if quiet else "json" if as_json else "lines"
    return _run(cohort, output, options, given, show, report=not no_report)


def _run(
    cohort: Cohort, output: Path, options: BatchOptions, given: Sequence[str], show: _Show, *, report: bool
) -> int:
    from wsi_ihc.batch import Records, run_batch
    from wsi_ihc.batch.children import convert_command
    from wsi_ihc.batch.summary import write_summary
    from wsi_ihc.cli.batch_display import batch_display

    records = Records(output)
    records.write_left_out(given, cohort.left_out)
    for each in cohort.left_out:
        say(f"left out: {each}", err=True)
    try:
        with batch_display(show == "nothing") as display:
            command = partial(convert_command, report=report)
            results = run_batch(cohort.entries, output, options, display, command=command)
    except KeyboardInterrupt:
        _say_what_is_kept(cohort.entries, records)
        raise
    write_summary(records)
    failed = [record for record in results.values() if record.state != "done" or (options.strict and record.warnings)]
    if show == "lines":
        _report(results, failed, cohort, output)
    elif show == "json":
        _print_json(records)
    return 1 if failed else LEFT_OUT if cohort.left_out else 0


def _print_json(records: Records) -> None:
    from wsi_ihc.batch import read_cohort, tally
    from wsi_ihc.batch.summary import as_json

    found = read_cohort(records)
    click.echo(json_text(as_json(records, found, tally(found), records.left_out())))


def _say_what_is_kept(entries: Sequence[Entry], records: Records) -> None:
    found = [record for record in (records.read(entry.name) for entry in entries) if record]
    done = sum(record.state == "done" for record in found)
    say(f"{done} of {len(entries)} slides are done and kept; finished blocks of the others are kept too", err=True)


def _report(results: dict[str, SlideRecord], failed: Sequence[SlideRecord], cohort: Cohort, output: Path) -> None:
    from wsi_ihc.batch.sharing import short_reason

    for record in failed:
        say(f"failed: {Path(record.slide).name}: {short_reason(record) or '; '.join(record.warnings)}")
    doubtful = sum(bool(record.warnings) for record in results.values() if record.state == "done")
    words = [f"{len(results) - len(failed)} of {len(results)} slides done"]
    words += [f"{doubtful} of them with warnings"] if doubtful else []
    words += [f"{len(cohort.left_out)} left out"] if cohort.left_out else []
    say(f"{', '.join(words)}; see {output / 'index.html'}")


def _preflight(entries: Sequence[Entry], output: Path, options: BatchOptions, no_space_check: bool) -> None:
    from wsi_ihc.batch.preflight import check_folder, check_owners, check_schedulers, check_space, missing

    check_schedulers(entries)
    check_folder(output)
    check_owners(entries, output)
    for entry in missing(entries):
        complain(f"{entry.slide}: missing; the others will be stained")
    if not no_space_check:
        check_space(entries, output, options.at_once)


def _preview(cohort: Cohort, output: Path, options: BatchOptions) -> int:
    from wsi_ihc.batch.preflight import check_owners, needed_bytes
    from wsi_ihc.batch.preview import WOULD_FAIL, preview

    check_owners(cohort.entries, output)
    failing = 0
    for entry, words in preview(cohort.entries, output, options):
        failing += words.startswith(WOULD_FAIL)
        say(f"{entry.slide} -> {entry.output(output).name}: {words}")
    for each in cohort.left_out:
        say(f"left out: {each}")
    needed = needed_bytes(cohort.entries, output, options.at_once)
    left_out = f", {len(cohort.left_out)} left out" if cohort.left_out else ""
    say(
        f"{len(cohort.entries)} slides{left_out}, {options.at_once} at a time; "
        f"about {max(1, round(needed / 1e6)):,} MB are needed"
    )
    return 1 if failing else LEFT_OUT if cohort.left_out else 0


def _bytes(text: str) -> int:
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        return TypeAdapter(ByteSize).validate_python(text)
    except ValidationError:
        raise SettingsError(f"--slide-memory {text}: expected a size, for example 8GB") from None


def _spread(settings: ConversionSettings, scheduler: str | None) -> ConversionSettings:
    if scheduler is None:
        return settings
    return settings.model_copy(update={"compute": settings.compute.model_copy(update={"scheduler": scheduler})})


def _refuse_with_scheduler(settings: ConversionSettings, options: BatchOptions) -> None:
    if settings.compute.scheduler is None:
        return
    if options.gpus:
        raise SettingsError("--gpus: with --scheduler the workers use their own GPUs; start one worker for each GPU")
    if options.cache:
        raise SettingsError("--cache: the workers of --scheduler could not read a copy that only this machine has")


def _gpus(given: str | None, settings: ConversionSettings) -> tuple[str, ...]:
    if given is None:
        return ()
    if settings.compute.device == "cpu" or ":" in settings.compute.device:
        raise SettingsError(
            f"--device {settings.compute.device}: leave it out with --gpus, which gives each child its own"
        )
    if given != "all":
        gpus = tuple(name.strip() for name in given.split(","))
        if not all(gpus) or len(set(gpus)) < len(gpus):
            raise SettingsError(f"--gpus {given}: expected all, or numbers with commas between them")
        return gpus
    found = _visible_gpus()
    if not found:
        raise SettingsError("--gpus all: no GPU was found; leave it out to use the processor")
    return found


def _visible_gpus() -> tuple[str, ...]:
    """The GPUs that a queueing system has given to this process, else those that the driver lists."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip() not in ("", "-1"))
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ()
    return tuple(
        str(index) for index, line in enumerate(line for line in listed.splitlines() if line.startswith("GPU "))
    )


def _part(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise SettingsError(f"--shard {text}: expected I/N with I from 1 to N, for example 1/4")
    return int(index), int(count)
