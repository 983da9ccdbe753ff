"""``wsi-ihc train``: trains a generator from pairs of H&E and IHC."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from wsi_ihc.config import Precision

if TYPE_CHECKING:
    from wsi_ihc.training.check import CheckReport
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
    help="Data set: HE/ and IHC/, trainA/ and trainB/, or side-by-side images.",
)
@click.option("-o", "--output", type=_FOLDER, metavar="RUN", help="Folder of the run; it is created.")
@click.option("--start", metavar="BUNDLE", help="Start from the weights of this bundle, given by name or path.")
@click.option("--resume", is_flag=True, help="Continue from the last checkpoint in RUN.")
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting, e.g. data.batch_size=4. Repeatable."
)
@click.option("--device", metavar="auto|cpu|cuda[:i]", help="Device to train on.")
@click.option("--precision", type=click.Choice(get_args(Precision)), help="Number format of the networks' arithmetic.")
@click.option("-n", "--dry-run", is_flag=True, help="Show the settings and the number of steps, then stop.")
@click.option("--check-only", is_flag=True, help="Check the data set, then stop. Exit code 8 if something is wrong.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
@click.option("-q", "--quiet", is_flag=True, help="Show only warnings and errors.")
def train(
    config: Path, data: Path | None, output: Path | None, start: str | None, resume: bool,
    assignments: tuple[str, ...], device: str | None, precision: str | None, dry_run: bool, check_only: bool,
    as_json: bool, quiet: bool,
) -> int:  # fmt: skip
    """Train the generator that CONFIG describes. Settings: docs/training_settings.md.

    \b
    wsi-ihc train configs/bci_variance.yaml --data BCI/ -o runs/variance
    wsi-ihc train configs/bci_variance.yaml --data BCI/ -o runs/variance --resume
    wsi-ihc train mine.yaml --data pairs/ --start runs/variance/bci-variance.safetensors -o runs/mine
    torchrun --nproc-per-node 4 -m wsi_ihc train configs/bci_variance.yaml --data BCI/ -o runs/variance
    """
    # OpenMP reads this when torch is imported. Threads then sleep at the end of a loop instead of spinning: slightly
    # slower on an idle machine, five times faster on a shared one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not quiet and sys.stderr.isatty():
        click.echo("loading torch", err=True)

    from wsi_ihc.training.check import check_sources
    from wsi_ihc.training.distributed import rank_and_ranks
    from wsi_ihc.training.loading import load_training_settings
    from wsi_ihc.training.sources import find_sources

    given = (*assignments, *_as_assignments(start, device, precision))
    rank, ranks = rank_and_ranks()
    settings = load_training_settings(config, data=data, assignments=given, ranks=ranks)
    if output is None and not (dry_run or check_only):
        raise click.UsageError("Missing option '-o' / '--output': the folder of the run.")
    say = click.echo if rank == 0 and not quiet else _say_nothing
    sources = find_sources(settings)
    if rank == 0:
        _warn(settings, ranks)
    if dry_run:
        _describe(settings, sources, as_json=as_json)
        return 0
    say("checking the data set", err=True)
    depth = "full" if check_only else settings.data.check
    sources, report = check_sources(sources, crop_px=settings.data.crop_px, depth=depth)
    for line in report.lines():
        say(line, err=True)
    if check_only:
        if as_json and rank == 0:
            click.echo(json.dumps(_checked(report), indent=2))
        return 0 if report.sound else 8
    assert output is not None
    command = _resume_command(config, data, output, given, ranks)
    return _train(settings, sources, report, output, command=command, resume=resume, quiet=quiet, as_json=as_json)


def _as_assignments(start: str | None, device: str | None, precision: str | None) -> list[str]:
    """The options that stand for a setting, as ``--set`` would give them."""
    # Quoted, as a path may hold what YAML reads otherwise.
    quoted = json.dumps(start) if start else None
    options = (("start", quoted), ("compute.device", device), ("compute.precision", precision))
    return [f"{key}={value}" for key, value in options if value]


def _warn(settings: TrainingSettings, ranks: int) -> None:
    from wsi_ihc.training.loading import doubts_about

    for doubt in doubts_about(settings, ranks):
        click.echo(f"warning: {doubt}", err=True)


def _checked(report: CheckReport) -> dict[str, Any]:
    """Pairs, scores and problems of a data set, for JSON."""
    problems = [asdict(problem) for problem in report.problems]
    return {"pairs": report.pairs, "scores": report.scores, "problems": problems}


def _train(
    settings: TrainingSettings, sources: Sequence[Source], report: CheckReport, output: Path, *,
    command: str, resume: bool, quiet: bool, as_json: bool,
) -> int:  # fmt: skip
    """Trains to the end, or until Ctrl-C: then it prints ``command``, which continues. Returns the exit code."""
    from wsi_ihc.cli import INTERRUPTED
    from wsi_ihc.training.distributed import joined_world

    with joined_world(settings.compute.device) as world:
        trainer = _prepare(settings, sources, report.lines(most=10**9), output, resume, world)
        try:
            _run(trainer, quiet=quiet or not world.leads)
            if as_json and world.leads:
                click.echo(json.dumps(_result(trainer, output), indent=2))
        except KeyboardInterrupt:
            if world.leads:
                # The terminal has written ^C: the line begins below it.
                click.echo(f"\nwsi-ihc: {_how_to_go_on(trainer, command)}", err=True)
            return INTERRUPTED
    return 0


def _prepare(
    settings: TrainingSettings, sources: Sequence[Source], checked: list[str], output: Path, resume: bool, world: World
) -> Trainer:
    """Opens the folder of the run and prepares the trainer; with ``resume``, at the last checkpoint."""
    import cv2

    from wsi_ihc.generators import tune_allocator
    from wsi_ihc.training.run_folder import RunFolder
    from wsi_ihc.training.sources import data_digest
    from wsi_ihc.training.trainer import Trainer

    # The threads that make batches already use all cores; threads of OpenCV would only compete with them.
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
    from wsi_ihc.cli.training_display import follow

    if trainer.state.step and not quiet:
        click.echo(f"continuing after step {trainer.state.step}", err=True)
    follow(trainer, quiet=quiet)
    if not quiet:
        name, best_by = trainer.settings.name, trainer.settings.run.best_by
        best = f", best {best_by} {trainer.state.best[best_by]:.4f}" if best_by in trainer.state.best else ""
        click.echo(f"{trainer.steps} steps taken{best}; generator: {trainer.run.bundle(name)}", err=True)


def _result(trainer: Trainer, output: Path) -> dict[str, object]:
    """Paths and figures of a finished run, for JSON."""
    settings, state = trainer.settings, trainer.state
    bundle = trainer.run.bundle(settings.name)
    return {"run": str(output), "steps": state.step, "best": dict(state.best), "generator": str(bundle)}


def _how_to_go_on(trainer: Trainer, command: str) -> str:
    """The line that an interrupted training ends with."""
    kept = (
        f"step {trainer.kept_step}, the last checkpoint"
        if trainer.kept_step
        else "the start: no checkpoint was due yet"
    )
    return f"interrupted after step {trainer.state.step}; continue from {kept}, with: {command}"


def _resume_command(config: Path, data: Path | None, output: Path, assignments: Sequence[str], ranks: int) -> str:
    """The command that continues the run."""
    program = ["wsi-ihc"] if ranks == 1 else ["torchrun", "…", "-m", "wsi_ihc"]
    folder = ["--data", str(data)] if data else []
    settings = [part for assignment in assignments for part in ("--set", assignment)]
    return shlex.join([*program, "train", str(config), *folder, "-o", str(output), *settings, "--resume"])


def _describe(settings: TrainingSettings, sources: Sequence[Source], *, as_json: bool) -> None:
    """Prints the resolved settings, the pairs, the steps and the size of the networks."""
    import yaml

    plan = _plan(settings, sources)
    if as_json:
        click.echo(json.dumps({"settings": settings.model_dump(mode="json")} | plan, indent=2))
        return
    click.echo(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False).rstrip())
    click.echo("---")
    for name, pairs in plan["sources"].items():
        click.echo(f"{name}: {pairs['train']} pairs to train, {pairs['validation']} to validate, "
                   f"{pairs['unpaired']} without partner")  # fmt: skip
    click.echo(f"{plan['steps']} steps of {plan['batch_size']} crops of {settings.data.crop_px} px, "
               f"{plan['steps_per_epoch']} an epoch")  # fmt: skip
    click.echo(f"losses: {plan['losses']}")
    for network, count in plan["parameters"].items():
        click.echo(f"{network}: {count:,} parameters")


def _plan(settings: TrainingSettings, sources: Sequence[Source]) -> dict[str, Any]:
    """Pairs, steps and network sizes that the settings lead to."""
    from wsi_ihc.generators import build_network
    from wsi_ihc.training.data import Schedule
    from wsi_ihc.training.discriminator import PatchDiscriminator
    from wsi_ihc.training.distributed import rank_and_ranks
    from wsi_ihc.training.objective import describe, objective_of
    from wsi_ihc.training.schedule import total_steps

    _, ranks = rank_and_ranks()
    batch = settings.data.pairs_per_step * ranks
    schedule = Schedule(sources, seed=0, batch=batch, epoch_pairs=settings.data.epoch_pairs)
    networks = {
        "generator": build_network(settings.network),
        "discriminator": PatchDiscriminator(settings.discriminator),
    }
    return {
        "sources": {
            source.name: {
                "train": len(source.train),
                "validation": len(source.validation),
                "unpaired": len(source.unpaired),
            }
            for source in sources
        },
        "steps": total_steps(settings, schedule.steps_per_epoch),
        "steps_per_epoch": schedule.steps_per_epoch,
        "batch_size": batch,
        "losses": describe(objective_of(settings.losses)),
        "parameters": {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()},
    }


def _say_nothing(message: str, err: bool = False) -> None:
    """Replaces ``click.echo`` on processes that must be silent."""
