"""``wsi-ihc batch``: a folder of slides in the evening, a folder of virtual IHC slides in the morning."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsi_ihc.cli.options import SLIDE, conversion_options, conversion_settings
from wsi_ihc.errors import SettingsError

if TYPE_CHECKING:
    from wsi_ihc.batch import BatchOptions, Entry, SlideRecord
    from wsi_ihc.config import ConversionSettings

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.argument("slides", type=SLIDE, nargs=-1)
@click.option("-o", "--output", type=_FOLDER, required=True, metavar="OUT", help="Folder of outputs and records.")
@click.option("--recursive", is_flag=True, help="Search folders of folders.")
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
    help="Slides at a time; 1, with --scheduler 2, or two for each GPU.",
)
@click.option("--gpus", metavar="all|0,1", help="Those that stain; each child sees one of them.")
@click.option("--shard", "part", metavar="I/N", help="Only part I of N, by a hash of the name.")
@click.option("--scheduler", metavar="ADDRESS", help="Spread each slide over the workers of this dask scheduler.")
@click.option("--retry-failed", is_flag=True, help="Also try slides again that failed for their own sake.")
@click.option(
    "--timeout", type=click.FloatRange(min=0.01), metavar="MIN", help="Give a slide up after so many minutes."
)
@click.option("--cache", type=_FOLDER, metavar="DIR", help="Copy slides ahead to this fast local disk.")
@click.option(
    "--cache-size", type=click.FloatRange(min=0.001), metavar="GB", help="Bound of --cache; half its free space."
)
@click.option("--no-space-check", is_flag=True, help="Begin although the disk looks too small.")
@conversion_options
@click.option("--overwrite", is_flag=True, help="Replace outputs that no batch has made.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be done with each slide; write nothing.")
@click.option("-q", "--quiet", is_flag=True, help="Nothing but errors.")
def batch(
    slides: tuple[Path, ...], output: Path, recursive: bool, table: Path | None, jobs: int | None, gpus: str | None,
    part: str | None, scheduler: str | None, retry_failed: bool, timeout: float | None, cache: Path | None,
    cache_size: float | None, no_space_check: bool, overwrite: bool, dry_run: bool, quiet: bool, **values: Any,
) -> int:  # fmt: skip
    """Stain SLIDES, files or folders of them, into the folder OUT. The same command again continues.

    Every slide is attempted, each in a process of its own. Finished ones are skipped, changed settings or a changed
    generator are noticed. Exit status 0 when all are done, 1 when not. OUT/index.html shows what became of them.

    \b
    wsi-ihc batch slides/ -o stained/
    wsi-ihc batch slides/ --recursive -o stained/ --gpus all --generator mymodel
    wsi-ihc status stained/
    """
    logging.basicConfig(format="wsi-ihc: %(message)s", level=logging.ERROR if quiet else logging.WARNING)
    from wsi_ihc.batch import BatchOptions, Records, gather, shard

    settings = _spread(conversion_settings(values), scheduler)
    options = BatchOptions(
        gpus=_gpus(gpus, settings),
        retry_failed=retry_failed,
        overwrite=overwrite,
        timeout_s=timeout * 60 if timeout else None,
        cache=cache,
        cache_bytes=int(cache_size * 1e9) if cache_size else None,
        # While one slide is prepared or written, the workers of a cluster have another to stain.
        jobs=jobs or (2 if settings.compute.scheduler and not gpus else None),
    )
    _refuse_with_scheduler(settings, options)
    ours = Records(output).outputs()
    entries = gather(slides, settings, table=table, recursive=recursive, leave_out=ours)
    if part:
        entries = shard(entries, *_part(part))
    if dry_run:
        return _preview(entries, output, options)
    _preflight(entries, output, options, no_space_check)
    return _run(entries, output, options, quiet)


def _run(entries: Sequence[Entry], output: Path, options: BatchOptions, quiet: bool) -> int:
    from wsi_ihc.batch import run_batch
    from wsi_ihc.cli.batch_display import batch_display

    with batch_display(quiet) as display:
        results = run_batch(entries, output, options, display)
    failed = {name: record for name, record in results.items() if record.state != "done"}
    if not quiet:
        _report(results, failed, output)
    return 1 if failed else 0


def _report(results: dict[str, SlideRecord], failed: dict[str, SlideRecord], output: Path) -> None:
    for record in failed.values():
        reason = record.reason.removeprefix(f"{record.slide}: ")
        click.echo(f"failed: {Path(record.slide).name}: {reason}")
    click.echo(f"{len(results) - len(failed)} of {len(results)} slides done; see {output / 'index.html'}")


def _preflight(entries: Sequence[Entry], output: Path, options: BatchOptions, no_space_check: bool) -> None:
    from wsi_ihc.batch.preflight import check_folder, check_owners, check_schedulers, check_space, missing

    check_schedulers(entries)
    check_folder(output)
    check_owners(entries, output)
    for entry in missing(entries):
        click.echo(f"wsi-ihc: {entry.slide}: missing; the others will be stained", err=True)
    if not no_space_check:
        check_space(entries, output, options.at_once)


def _preview(entries: Sequence[Entry], output: Path, options: BatchOptions) -> int:
    from wsi_ihc.batch.preflight import check_owners, needed_bytes
    from wsi_ihc.batch.preview import preview

    check_owners(entries, output)
    for entry, words in preview(entries, output, options):
        click.echo(f"{entry.slide} -> {entry.output(output).name}: {words}")
    needed = needed_bytes(entries, output, options.at_once)
    click.echo(
        f"{len(entries)} slides, {options.at_once} at a time; about {max(1, round(needed / 1e6)):,} MB are needed"
    )
    return 0


def _spread(settings: ConversionSettings, scheduler: str | None) -> ConversionSettings:
    if scheduler is None:
        return settings
    return settings.model_copy(update={"compute": settings.compute.model_copy(update={"scheduler": scheduler})})


def _refuse_with_scheduler(settings: ConversionSettings, options: BatchOptions) -> None:
    if settings.compute.scheduler is None:
        return
    if options.gpus:
        raise SettingsError("--gpus: with --scheduler the workers bring their own; start one worker for each GPU")
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
        raise SettingsError("--gpus all: no GPU was found; leave it out to work on the processor")
    return found


def _visible_gpus() -> tuple[str, ...]:
    """What a queueing system has given to this process, else what the driver lists."""
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
