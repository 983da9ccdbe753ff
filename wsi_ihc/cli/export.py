"""``wsi-ihc weights export``: writes the generator of a training run as a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from wsi_ihc.cli.terminal import say


@click.command()
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@click.option("-o", "--output", required=True, metavar="NAME|FILE", help="Install it under NAME, or write FILE.")
@click.option("--last", is_flag=True, help="Take the last checkpoint, whatever run.best_by chose.")
@click.option(
    "--half", is_flag=True, help="Store float16 weights: half the size; pixels change by less than one grey level."
)
@click.option("--measured", default="", metavar="TEXT", help="For the card: how it was judged, and with which result.")
@click.option("--overwrite", is_flag=True, help="Replace a bundle of this name.")
def export(run: Path, output: str, last: bool, half: bool, measured: str, overwrite: bool) -> None:
    """Write the averaged generator of RUN as a bundle with its card, ready for convert --generator."""
    from wsi_ihc.generators import bundle_path, generator_name
    from wsi_ihc.training.export import export_run

    path = bundle_path(output)
    bundle = export_run(run, path, name=path.stem, measured=measured, last=last, half=half, overwrite=overwrite)
    parameters = sum(tensor.numel() for tensor in bundle.state.values())
    say(f"{path}: {bundle.card.name}, {parameters:,} numbers, {path.stat().st_size / 1e6:.1f} MB")
    say(f"wsi-ihc convert SLIDE -o SLIDE_ihc.ome.tiff --generator {generator_name(path)}")
