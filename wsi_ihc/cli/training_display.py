"""Progress of a training: a bar with the losses below it on a terminal, plain lines in a log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

if TYPE_CHECKING:
    from wsi_ihc.training.trainer import Trainer


def follow(trainer: Trainer, *, quiet: bool) -> None:
    """Takes all steps, with a bar on a terminal and lines in a log."""
    console = Console(stderr=True, quiet=quiet)
    with _Bar(*_COLUMNS, console=console, disable=quiet or not console.is_terminal) as bar:
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


class _Bar(Progress):
    """A bar of at most 80 columns; the losses have a line of their own below it."""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        yield from (Text(task.fields["losses"], overflow="ellipsis", no_wrap=True) for task in self.tasks)


_COLUMNS = (
    TextColumn("training"), BarColumn(bar_width=14), MofNCompleteColumn(), TextColumn("{task.fields[pace]}"),
    TimeElapsedColumn(), TextColumn("gone,"), TimeRemainingColumn(), TextColumn("left"),
)  # fmt: skip


def _pace(measures: dict[str, float]) -> str:
    return f"{measures['time/steps_per_s']:.2f} steps/s"


def _losses(measures: dict[str, float]) -> str:
    shares = {name.partition("/")[2]: value for name, value in measures.items() if name.startswith("share/")}
    parts = [f"waiting for data {measures['time/waiting_share']:.0%}"]
    for name, value in measures.items():
        kind, _, term = name.partition("/")
        if kind == "loss" and term != "total":
            parts.append(f"{term} {value:.3f}" + (f" ({shares[term]:.0%})" if term in shares else ""))
    return "  ".join(parts)
