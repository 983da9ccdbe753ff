"""``wsi-ihc report``: one page about one output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wsi_ihc.cli.options import OUTPUT
from wsi_ihc.cli.terminal import complain, say
from wsi_ihc.errors import GeneratorError, WsiIhcError


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
    from wsi_ihc.viewer.report import write_report

    card = card_of(output)
    written = write_report(output, page, slide=slide, regions=regions, card=card, overwrite=overwrite)
    say(f"{written}: {written.stat().st_size / 1000:.0f} kB")


def report_after_conversion(slide: Path, output: Path, *, quiet: bool) -> None:
    """Writes the page of a finished output. The output stays where the page cannot be written: that is no failure."""
    from wsi_ihc.viewer.report import write_report

    try:
        page = write_report(output, slide=slide, card=card_of(output), overwrite=True)
    except WsiIhcError as error:
        complain(f"no report: {error}")
    else:
        if not quiet:
            say(page)


def card_of(output: Path) -> dict[str, Any]:
    """What the card of the generator of ``output`` says, where this machine has that very generator; else empty.

    Raises:
        SlideError: wsi-ihc did not make the output.
    """
    from wsi_ihc.generators import load_card
    from wsi_ihc.viewer.outputs import open_output

    made = open_output(output).provenance
    try:
        card = load_card(made.generator)
    except GeneratorError:
        return {}
    if made.generator_sha256 and card.sha256 != made.generator_sha256:
        return {}
    kept = {"training_data", "licence", "description", "intended_use", "sources"}
    facts = {name: text for name, text in card.model_dump(mode="json", include=kept).items() if text}
    return {name.replace("_", " "): ", ".join(text) if isinstance(text, list) else text for name, text in facts.items()}
