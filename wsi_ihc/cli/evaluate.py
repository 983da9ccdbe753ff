"""``wsi-ihc evaluate``: compares generated images with real IHC."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from wsi_ihc.config import Precision
from wsi_ihc.errors import SettingsError

if TYPE_CHECKING:
    from rich.table import Table

    from wsi_ihc.evaluation.comparison import Comparison
    from wsi_ihc.evaluation.evaluate import Options, Progress, TestSet
    from wsi_ihc.evaluation.generated import Generated
    from wsi_ihc.evaluation.report import Report

_FOLDER = click.Path(path_type=Path, file_okay=False)
_DISTANCES = (
    "fid",
    "kid_x1000",
    "features_frechet",
    "features_kernel_x1000",
    "texture_frechet",
    "texture_kernel_x1000",
)
_BENCH = ("bench_psnr", "bench_ssim", "bench_lpips", "bench_dab_r", "bench_dab_mae")
_SHOWN = (
    *_BENCH,
    "psnr",
    "ssim",
    "ms_ssim",
    "dab_r",
    "order_violations",
    "haematoxylin_ssim",
    "spread_ratio",
    *_DISTANCES,
)


@click.command()
@click.argument("generator", required=False, metavar="[RUN|BUNDLE|NAME]")
@click.option(
    "--data",
    required=True,
    type=_FOLDER,
    metavar="DIR",
    help="Pairs: HE/ and IHC/, trainA/ and trainB/, or side-by-side images.",
)
@click.option("--ihc", type=_FOLDER, metavar="DIR", help="Folder of the real IHC, if --data holds only the H&E.")
@click.option("--split", metavar="NAME", help="Split to use; test by default, if there are splits.")
@click.option(
    "--predictions",
    type=_FOLDER,
    metavar="DIR",
    help="Images made by any program and named like the H&E images, instead of a generator.",
)
@click.option("-o", "--output", required=True, type=_FOLDER, metavar="DIR", help="Folder of the report.")
@click.option(
    "--recipe",
    type=click.Choice(["bci", "modern", "bench", "all"]),
    default="all",
    show_default=True,
    help="Measures to compute; all is bci and modern.",
)
@click.option(
    "--features",
    default="texture",
    show_default=True,
    metavar="FILE|texture",
    help="Feature network for FID and KID (TorchScript or torch.export). The built-in texture is NOT Inception.",
)
@click.option(
    "--lpips",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="LPIPS network for --recipe bench (TorchScript or torch.export); none is shipped.",
)
@click.option(
    "--against",
    multiple=True,
    metavar="REPORT|RUN|BUNDLE",
    help="Compare with this report, or with this generator. Repeatable.",
)
@click.option("--name", metavar="TEXT", help="Name of this run in the report.")
@click.option(
    "--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:i]", help="Device that runs the generator."
)
@click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    default="float32",
    show_default=True,
    help="Number format of the generator's arithmetic.",
)
@click.option(
    "--workers",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Processes that measure images; 0 uses every core.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the bootstrap.")
@click.option("--html/--no-html", default=True, help="Write report.html too, beside report.json and images.csv.")
@click.option("--overwrite", is_flag=True, help="Replace a report that exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON on standard output.")
@click.option("-q", "--quiet", is_flag=True, help="Show neither progress nor table.")
def evaluate(
    generator: str | None,
    data: Path,
    ihc: Path | None,
    split: str | None,
    predictions: Path | None,
    output: Path,
    recipe: str,
    features: str,
    lpips: Path | None,
    against: tuple[str, ...],
    name: str | None,
    device: str,
    precision: str,
    workers: int,
    seed: int,
    html: bool,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare the output of a generator, or the images of --predictions, with real IHC.

    The generator is the folder of a training run, a bundle, or a name from weights list. The report gives each measure
    overall and by HER2 score, with 95 % intervals: report.json, images.csv and the page report.html.

    \b
    wsi-ihc evaluate runs/variance --data BCI/ -o report/
    wsi-ihc evaluate --predictions results/ --data BCI/ -o report/ --against other_report/
    """
    if (generator is None) == (predictions is None):
        raise SettingsError("evaluate: give either a generator (run, bundle or name) or --predictions DIR")
    if not quiet and sys.stderr.isatty():
        click.echo("loading torch", err=True)
    from dataclasses import replace

    from wsi_ihc.evaluation.evaluate import Options, load_test_set, prepare_output
    from wsi_ihc.evaluation.evaluate import evaluate as evaluate_images
    from wsi_ihc.evaluation.generated import from_predictions
    from wsi_ihc.evaluation.recipes import chosen_recipes
    from wsi_ihc.evaluation.report import JSON_NAME

    options = Options(chosen_recipes(recipe), features, lpips, seed, workers, html)
    test_set = load_test_set(data, ihc, split)
    predicted = from_predictions(predictions, test_set.pairs) if predictions else None
    prepare_output(output, overwrite=overwrite)
    with _progress(quiet) as progress:
        judge = _Judge(test_set, options, device, precision, progress)
        others = [judge.report(source, output / "against" / str(place)) for place, source in enumerate(against, 1)]
        made = predicted or judge.stain(str(generator), output)
        made = replace(made, name=name or made.name)
        report, comparison = evaluate_images(made, test_set, output, options, against=others, progress=progress)
    if as_json:
        click.echo((output / JSON_NAME).read_text(encoding="utf-8").rstrip())
    elif not quiet:
        _show(report, comparison, output)


class _Judge:
    """Stains with the generators that the user named, and measures all of them with the same options."""

    def __init__(self, test_set: TestSet, options: Options, device: str, precision: str, progress: Progress) -> None:
        self._test_set, self._options, self._progress = test_set, options, progress
        self._device, self._precision = device, precision

    def stain(self, generator: str, folder: Path) -> Generated:
        from dataclasses import replace

        from wsi_ihc.evaluation.generated import from_generator

        pairs = self._test_set.pairs
        advance = self._progress(f"staining with {Path(generator).name}", len(pairs))
        made = from_generator(
            generator, pairs, folder / "generated", device=self._device, precision=self._precision, advance=advance
        )
        return replace(made, name=_run_name(generator, made.name))

    def report(self, source: str, folder: Path) -> Report:
        """Reads the report ``source``, or measures the generator ``source`` and writes its report to ``folder``."""
        from wsi_ihc.evaluation.evaluate import evaluate as evaluate_images
        from wsi_ihc.evaluation.evaluate import prepare_output
        from wsi_ihc.evaluation.report import JSON_NAME, read_report

        path = Path(source)
        if path.name == JSON_NAME or (path / JSON_NAME).is_file():
            return read_report(path)
        prepare_output(folder, overwrite=True)
        made = self.stain(source, folder)
        return evaluate_images(made, self._test_set, folder, self._options, progress=self._progress)[0]


def _run_name(generator: str, name: str) -> str:
    """The name of a run is that of its folder: several runs may share the name on their cards."""
    return Path(generator).resolve().name if Path(generator).is_dir() else name


@contextmanager
def _progress(quiet: bool) -> Generator[Progress]:
    if quiet:
        yield lambda stage, images: lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        def begin(stage: str, images: int) -> Callable[[], None]:
            task = bars.add_task(stage, total=images)
            return lambda: bars.advance(task)

        yield begin


def _show(report: Report, comparison: Comparison | None, output: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from wsi_ihc.evaluation.recipes import measure_named
    from wsi_ihc.evaluation.report import PAGE_NAME, group_names

    groups = group_names(report.figures)
    table = Table("measure", *groups, title=f"{report.name}, {len(report.names)} images", title_justify="left")
    for key in _SHOWN:
        if report.figure(key):
            measure = measure_named(key)
            own = [report.figure(key, group) for group in groups]
            table.add_row(measure.title, *(f"{f.estimate.value:.{measure.digits}f}" if f else "" for f in own))
    console = Console()
    console.print(table)
    if comparison:
        console.print(_comparison_table(comparison))
    for notice in report.notices:
        console.print(f"note: {notice}", highlight=False)
    page = output / PAGE_NAME
    console.print(f"{page if page.exists() else output}", highlight=False)


def _comparison_table(comparison: Comparison) -> Table:
    from rich.table import Table

    from wsi_ihc.evaluation.recipes import measure_named

    columns = ("against", "measure", "difference", "95 % interval", "better : worse", "p")
    table = Table(*columns, title=f"{comparison.runs[0]} minus the other run", title_justify="left")
    for row in comparison.differences:
        measure, paired = measure_named(row.measure), row.paired
        estimate = paired.difference
        value, low, high = (f"{v:+.{measure.digits}f}" for v in (estimate.value, estimate.low, estimate.high))
        counts = f"{paired.wins} : {paired.losses}"
        table.add_row(row.other, measure.title, value, f"{low} to {high}", counts, f"{paired.p:.2g}")
    return table
