"""``wsi-ihc phantom``: draws a slide or a data set of pairs, with no patient behind it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from wsi_ihc.cli.terminal import say
from wsi_ihc.errors import OutputError, SettingsError
from wsi_ihc.measures.her2 import HER2_SCORES, Her2
from wsi_ihc.pyramid.geometry import Size

BESIDE = "beside"
SPARSE = 0.05


@click.command("phantom")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="OUT",
    help="Slide to write (.tiff); with --pairs, a new folder.",
)
@click.option(
    "--her2",
    type=click.Choice(HER2_SCORES),
    default="3+",
    show_default=True,
    help="HER2 score of the tumour.",
)
@click.option("--size", metavar="WxH", help="Size in pixels; 2048x2560 by default, 512x512 with --pairs.")
@click.option("--mpp", type=float, default=0.5, show_default=True, metavar="UM", help="Pixel size.")
@click.option(
    "--seed", type=int, default=0, show_default=True, metavar="N", help="Seed; another seed draws another tumour."
)
@click.option(
    "--pair",
    is_flag=False,
    flag_value=BESIDE,
    metavar="[FILE]",
    help="Also draw the HER2 IHC of the same section, as OUT_ihc.tiff or FILE.",
)
@click.option(
    "--sparse",
    is_flag=False,
    flag_value=str(SPARSE),
    type=float,
    metavar="[SHARE]",
    help=f"Share of the slide that tissue covers: 0.6 without this option, {SPARSE} with it and no number.",
)
@click.option(
    "--look",
    type=int,
    metavar="N",
    help="Imitate a random laboratory and scanner, drawn from this seed; by default the slide is clean.",
)
@click.option(
    "--pairs",
    type=int,
    metavar="N",
    help="Draw a data set of N pairs instead, in the layout of BCI, with all scores and many looks.",
)
@click.option(
    "--split",
    default="0.8,0.2",
    show_default=True,
    metavar="TRAIN,TEST",
    help="With --pairs: shares of training and test pairs.",
)
@click.option(
    "--misalign",
    type=float,
    default=0.0,
    show_default=True,
    metavar="PX",
    help="With --pairs: shift each IHC by up to PX pixels and turn it slightly.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 256),
    default=2,
    show_default=True,
    metavar="N",
    help="Blocks to draw at the same time.",
)
@click.option("--overwrite", is_flag=True, help="Replace a slide that exists.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def phantom(
    output: Path,
    her2: Her2,
    size: str | None,
    mpp: float,
    seed: int,
    pair: str | None,
    sparse: float | None,
    look: int | None,
    pairs: int | None,
    split: str,
    misalign: float,
    threads: int,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Draw a digital tissue phantom: breast-like carcinoma in H&E, with its HER2 IHC if wanted.

    Slides can have any size; memory stays the same.

    \b
    wsi-ihc phantom -o phantom.tiff --her2 3+ --size 16000x16000 --pair
    wsi-ihc phantom -o pairs --pairs 400 --misalign 10
    """
    if pairs is not None:
        _draw_pairs(output, pairs, _size(size or "512x512"), mpp, seed, split, misalign, threads, quiet)
        return
    from wsi_ihc.phantom import Look, draw_phantom

    plane = _size(size or "2048x2560")
    ihc = (
        None
        if pair is None
        else output.with_name(f"{output.stem}_ihc{output.suffix}")
        if pair == BESIDE
        else Path(pair)
    )
    _check_outputs(output, ihc, overwrite)
    with _progress(plane.height * plane.width / 1e6, "Mpx", quiet) as advance:
        draw_phantom(
            output,
            her2=her2,
            size=plane,
            mpp=mpp,
            seed=seed,
            pair_path=ihc,
            look=None if look is None else Look.random(look),
            share=0.6 if sparse is None else sparse,
            threads=threads,
            progress=lambda pixels: advance(pixels / 1e6),
        )
    say(" and ".join(str(path) for path in (output, ihc) if path))


def _draw_pairs(
    folder: Path, count: int, size: Size, mpp: float, seed: int, split: str, misalign: float, threads: int, quiet: bool
) -> None:
    from wsi_ihc.phantom import draw_pairs

    train_share = _train_share(split)
    with _progress(count, "pairs", quiet) as advance:
        draw_pairs(
            folder,
            count,
            size=size,
            mpp=mpp,
            seed=seed,
            train_share=train_share,
            misalign_px=misalign,
            threads=threads,
            progress=advance,
        )
    say(f"{folder}: {count} pairs")


def _size(text: str) -> Size:
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise SettingsError(f"--size {text}: expected WIDTHxHEIGHT in pixels, for example 2048x2560")
    return Size(int(height), int(width))


def _train_share(text: str) -> float:
    """The share of the training pairs; ``80,20`` and ``0.8,0.2`` mean the same."""
    try:
        train, test = (float(part) for part in text.split(","))
    except ValueError:
        raise SettingsError(f"--split {text}: expected two shares, for example 0.8,0.2") from None
    if not (train >= 0 and test >= 0 and 0 < train + test < float("inf")):
        raise SettingsError(f"--split {text}: expected shares from 0 up that are not both 0")
    return train / (train + test)


def _check_outputs(output: Path, ihc: Path | None, overwrite: bool) -> None:
    if ihc is not None and ihc.absolute() == output.absolute():
        raise SettingsError(f"--pair {ihc}: this is the name of the H&E; give the IHC another name")
    for path in (output, ihc):
        if path is None:
            continue
        if path.suffix.lower() not in (".tif", ".tiff"):
            raise SettingsError(f"{path}: the phantom is written as TIFF; the name must end in .tiff")
        if path.is_dir() or (path.exists() and not overwrite):
            raise OutputError(f"{path}: exists already; give another name or --overwrite")


@contextmanager
def _progress(total: float, unit: str, quiet: bool) -> Iterator[Callable[[float], None]]:
    """A bar on a terminal, nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("drawing"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} " + unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("drawing", total=total)
        yield lambda done: bar.advance(task, done)
