"""``wsi-ihc train``: pairs in, a generator out."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from wsi_ihc.config import Precision

if TYPE_CHECKING:
    from wsi_ihc.training.config import TrainingSettings
    from wsi_ihc.training.distributed import World
    from wsi_ihc.training.sources import Source
    from wsi_ihc.training.trainer import Trainer

_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("config", type=_FILE)
@click.option(
    "--data",
    type=_FOLDER,
    metavar="DIR",
    help="The data set: HE/ and IHC/, trainA/ and trainB/, or side-by-side images.",
)
@click.option("-o", "--output", type=_FOLDER, metavar="RUN", help="Folder of the run; made here.")
@click.option("--start", metavar="BUNDLE", help="Begin with the weights of this bundle, by name or path.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in RUN.")
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting, for example data.batch_size=4."
)
@click.option("--device", metavar="auto|cpu|cuda[:i]", help="Where it trains.")
@click.option("--precision", type=click.Choice(get_args(Precision)), help="Arithmetic of the networks.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be done, and stop.")
@click.option(
    "--check-only", is_flag=True, help="Check the data set, report, and stop; exit code 8 if something is wrong."
)
@click.option("-q", "--quiet", is_flag=True, help="No progress, only warnings and errors.")
def train(
    config: Path, data: Path | None, output: Path | None, start: str | None, resume: bool,
    assignments: tuple[str, ...], device: str | None, precision: str | None, dry_run: bool, check_only: bool,
    quiet: bool,
) -> int:  # fmt: skip
    """Train the generator that CONFIG describes.

    \b
    wsi-ihc train configs/bci_variance.yaml --data BCI/ -o runs/variance
    wsi-ihc train configs/bci_variance.yaml --data BCI/ -o runs/variance --resume
    wsi-ihc train mine.yaml --data pairs/ --start runs/variance/bci-variance.safetensors -o runs/mine
    torchrun --nproc-per-node 4 -m wsi_ihc train configs/bci_variance.yaml --data BCI/ -o runs/variance
    """
    # Read when torch is first imported. Threads that sleep at the end of a loop instead of spinning: a little slower
    # on an idle machine, five times faster on one that is shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    from wsi_ihc.cli import INTERRUPTED
    from wsi_ihc.training.check import check_sources
    from wsi_ihc.training.config import load_training_settings
    from wsi_ihc.training.distributed import joined_world, rank_and_ranks
    from wsi_ihc.training.sources import find_sources

    # Quoted, as a path may hold what YAML reads otherwise.
    quoted = json.dumps(start) if start else None
    options = (("start", quoted), ("compute.device", device), ("compute.precision", precision))
    chosen = (f"{key}={value}" for key, value in options if value)
    given = (*assignments, *chosen)
    rank, ranks = rank_and_ranks()
    settings = load_training_settings(config, data=data, assignments=given, ranks=ranks)
    if output is None and not (dry_run or check_only):
        raise click.UsageError("Missing option '-o' / '--output': the folder of the run.")
    say = click.echo if rank == 0 and not quiet else _say_nothing
    sources = find_sources(settings)
    if dry_run:
        _describe(settings, sources)
        return 0
    depth = "full" if check_only else settings.data.check
    say("checking the data set", err=True)
    sources, report = check_sources(sources, crop_px=settings.data.crop_px, depth=depth)
    for line in report.lines():
        say(line, err=True)
    if check_only:
        return 8 if report.problems else 0
    assert output is not None
    with joined_world(settings.compute.device) as world:
        trainer = _prepare(settings, sources, report.lines(most=10**9), output, resume, world)
        try:
            _run(trainer, quiet=quiet or not world.leads)
        except KeyboardInterrupt:
            if world.leads:
                command = _resume_command(config, data, output, given, ranks)
                # The terminal has written ^C: the line begins below it.
                click.echo(f"\nwsi-ihc: {_how_to_go_on(trainer, command)}", err=True)
            return INTERRUPTED
    return 0


def _prepare(
    settings: TrainingSettings, sources: Sequence[Source], checked: list[str], output: Path, resume: bool, world: World
) -> Trainer:
    """The run's folder and its trainer, where the run stands."""
    import cv2

    from wsi_ihc.generators import tune_allocator
    from wsi_ihc.training.run_folder import RunFolder
    from wsi_ihc.training.sources import data_digest
    from wsi_ihc.training.trainer import Trainer

    # The threads that make batches are the parallelism; OpenCV's own would only fight with them.
    cv2.setNumThreads(1)
    if world.device.type == "cpu":
        tune_allocator()
    folder = RunFolder(output)
    if world.leads:
        folder.begin(settings, data_digest(sources), resume=resume)
        folder.write_check(checked)
    trainer = Trainer(settings, sources, folder, world)
    if resume:
        trainer.resume()
    return trainer


def _run(trainer: Trainer, *, quiet: bool) -> None:
    if trainer.state.step and not quiet:
        click.echo(f"resuming after step {trainer.state.step}", err=True)
    _follow(trainer, quiet=quiet)
    if not quiet:
        name, best_by = trainer.settings.name, trainer.settings.run.best_by
        best = f", best {best_by} {trainer.state.best[best_by]:.4f}" if best_by in trainer.state.best else ""
        click.echo(f"{trainer.steps} steps taken{best}; generator: {trainer.run.bundle(name)}", err=True)


def _how_to_go_on(trainer: Trainer, command: str) -> str:
    """The one line of an interrupted training."""
    kept = (
        f"step {trainer.kept_step}, the last checkpoint" if trainer.kept_step else "the start, as no checkpoint was due"
    )
    return f"interrupted after step {trainer.state.step}; go on from {kept}, with: {command}"


def _resume_command(config: Path, data: Path | None, output: Path, assignments: Sequence[str], ranks: int) -> str:
    """What the user types to go on."""
    program = ["wsi-ihc"] if ranks == 1 else ["torchrun", "…", "-m", "wsi_ihc"]
    folder = ["--data", str(data)] if data else []
    settings = [part for assignment in assignments for part in ("--set", assignment)]
    return shlex.join([*program, "train", str(config), *folder, "-o", str(output), *settings, "--resume"])


def _follow(trainer: Trainer, *, quiet: bool) -> None:
    """Take all steps; a bar on a terminal, lines in a log."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True, quiet=quiet)
    columns = (
        TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[pace]}"),
        TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[losses]}"),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("training", total=trainer.steps, completed=trainer.state.step, pace="", losses="")
        for report in trainer.take_steps():
            bar.update(task, completed=report.step)
            for warning in report.warnings:
                console.print(f"warning: {warning}", soft_wrap=True)
            if report.measures:
                pace, losses = _pace(report.measures), _losses(report.measures)
                bar.update(task, pace=pace, losses=losses)
                if not console.is_terminal:
                    console.print(
                        f"step {report.step}/{report.steps}  {pace}  {losses}", soft_wrap=True, highlight=False
                    )
            if report.validation and not console.is_terminal:
                seen = "  ".join(f"{name} {value:.4f}" for name, value in report.validation.items())
                console.print(f"step {report.step}/{report.steps}  validation  {seen}", soft_wrap=True, highlight=False)


def _pace(measures: dict[str, float]) -> str:
    return f"{measures['time/steps_per_s']:.2f} it/s, waiting {measures['time/waiting_share']:.0%}"


def _losses(measures: dict[str, float]) -> str:
    shares = {name.partition("/")[2]: value for name, value in measures.items() if name.startswith("share/")}
    parts = []
    for name, value in measures.items():
        kind, _, term = name.partition("/")
        if kind == "loss" and term != "total":
            parts.append(f"{term} {value:.3f}" + (f" ({shares[term]:.0%})" if term in shares else ""))
    return "  ".join(parts)


def _describe(settings: TrainingSettings, sources: Sequence[Source]) -> None:
    """The resolved settings and what they would do."""
    import yaml

    from wsi_ihc.generators import build_network
    from wsi_ihc.training.data import Schedule
    from wsi_ihc.training.discriminator import PatchDiscriminator
    from wsi_ihc.training.distributed import rank_and_ranks
    from wsi_ihc.training.schedule import total_steps

    click.echo(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False).rstrip())
    click.echo("---")
    for source in sources:
        click.echo(f"{source.name}: {len(source.train)} pairs to train, {len(source.validation)} to validate, "
                   f"{len(source.unpaired)} without partner")  # fmt: skip
    _, ranks = rank_and_ranks()
    data = settings.data
    schedule = Schedule(sources, seed=0, batch=data.batch_size * ranks, epoch_pairs=data.epoch_pairs)
    steps, size = total_steps(settings, schedule.steps_per_epoch), data.batch_size * ranks
    click.echo(f"{steps} steps of {size} crops of {data.crop_px} px, {schedule.steps_per_epoch} an epoch")
    for label, network in (
        ("generator", build_network(settings.network)),
        ("discriminator", PatchDiscriminator(settings.discriminator)),
    ):
        click.echo(f"{label}: {sum(p.numel() for p in network.parameters()):,} parameters")


def _say_nothing(message: str, err: bool = False) -> None:
    """In place of ``click.echo`` on a process that should not talk."""
