"""``wsi-ihc report``: one page about one output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wsi_ihc.cli.options import OUTPUT


@click.command()
@click.argument("output", type=OUTPUT, metavar="OUT.ome.tiff")
@click.option("-o", "--page", type=OUTPUT, metavar="PAGE.html", help="Default: OUT.html beside the output.")
@click.option("--slide", type=click.Path(path_type=Path), metavar="SLIDE", help="The H&E, where it is not beside it.")
@click.option(
    "--regions", type=OUTPUT, metavar="FILE.geojson", help="Annotations from QuPath: a read-out for each of them."
)
@click.option("--overwrite", is_flag=True, help="Replace a page that exists.")
def report(output: Path, page: Path | None, slide: Path | None, regions: Path | None, overwrite: bool) -> None:
    """Write one HTML page about OUT.ome.tiff: both pictures, fields of interest, read-out, warnings, provenance.

    The page needs no other file and no network, and prints on two sheets of A4.

    \b
    wsi-ihc report slide_ihc.ome.tiff
    wsi-ihc report slide_ihc.ome.tiff --regions tumour.geojson -o tumour.html
    """
    from wsi_ihc.viewer.outputs import open_output
    from wsi_ihc.viewer.report import write_report

    made = open_output(output).provenance
    card = card_of(made.generator, made.generator_sha256)
    written = write_report(output, page, slide=slide, regions=regions, card=card, overwrite=overwrite)
    click.echo(f"{written}: {written.stat().st_size / 1000:.0f} kB")


def card_of(generator: str, sha256: str | None) -> dict[str, Any]:
    """What the generator's card says, where this machine has that very generator; else empty."""
    from wsi_ihc.errors import GeneratorError
    from wsi_ihc.generators import load_card

    try:
        card = load_card(generator)
    except GeneratorError:
        return {}
    if sha256 and card.sha256 != sha256:
        return {}
    kept = {"training_data", "licence", "description", "intended_use", "sources"}
    facts = {name: text for name, text in card.model_dump(mode="json", include=kept).items() if text}
    return {name.replace("_", " "): ", ".join(text) if isinstance(text, list) else text for name, text in facts.items()}
