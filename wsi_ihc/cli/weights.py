"""``wsi-ihc weights``: lists generators, shows their cards, imports, exports and removes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsi_ihc.cli.export import export
from wsi_ihc.config import GeneratorSettings

if TYPE_CHECKING:
    from wsi_ihc.generators import GeneratorCard


@click.group()
def weights() -> None:
    """List, show, import, export and remove generators."""


weights.add_command(export)


@weights.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the cards as JSON.")
def list_command(as_json: bool) -> None:
    """List the generators by the names that --generator takes.

    EVIDENCE says how far a stain can be trusted. A demonstration learned from drawings and only shows the pipeline.
    Real tissue means: learned from real stained tissue, and measured on regions that no training saw.
    """
    from wsi_ihc.generators import list_generators

    cards, notices = list_generators()
    if as_json:
        click.echo(json.dumps([card.model_dump(mode="json") for card in cards], indent=2))
    else:
        click.echo(_table([("NAME", "STAIN", "EVIDENCE", "UM/PX", "ARCHITECTURE", "LICENCE"), *map(_row, cards)]))
    for notice in notices:
        click.echo(f"wsi-ihc: {notice}", err=True)


@weights.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the card as JSON.")
def show_command(name: str, as_json: bool) -> None:
    """Show the card of NAME, a generator or a bundle file, and check its weights against the card."""
    from wsi_ihc.generators import load_generator

    card = load_generator(name).card
    if as_json:
        click.echo(card.model_dump_json(indent=2))
        return
    architecture = card.architecture
    lines = {
        "name": card.name,
        "architecture": architecture.summary,
        "resolution": "any" if card.mpp is None else f"{card.mpp:g} um/px",
        "stain": f"{card.stain}, counterstain {card.counterstain}",
        "training data": card.training_data,
        "licence": card.licence,
        "description": card.description,
        "evidence": card.evidence,
        "measured": card.measured,
        "intended use": card.intended_use,
        "sources": "; ".join(card.sources),
        "sha256": f"{card.sha256} (checked)",
        "created by": card.created_by,
    }
    click.echo(_table([(key, value) for key, value in lines.items() if value]))


@weights.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", metavar="NAME|FILE", help="Install it under NAME for this user, or write FILE (.safetensors)."
)
@click.option(
    "--mpp", type=click.FloatRange(0.05, 20), metavar="UM", help="Pixel size of its training images, um/px (BCI: 0.46)."
)
@click.option("--stain", metavar="TEXT", help='Stain that it makes, for example "HER2 IHC".')
@click.option(
    "--licence",
    default="unknown",
    show_default=True,
    metavar="TEXT",
    help="Licence of the weights; often that of the training data. Every output names an unknown one.",
)
@click.option("--part", metavar="NAME", help="Which generator, if FILE holds several.")
@click.option(
    "--training-data", default="not stated", show_default=True, metavar="TEXT", help="Data set that it learned from."
)
@click.option("--description", default="", metavar="TEXT", help="Anything else that a user should know.")
@click.option("--name", metavar="TEXT", help="Name on the card, if it should differ from NAME or FILE.")
@click.option("--overwrite", is_flag=True, help="Replace an existing bundle.")
def import_command(
    file: Path,
    output: str | None,
    mpp: float | None,
    stain: str | None,
    licence: str,
    part: str | None,
    training_data: str,
    description: str,
    name: str | None,
    overwrite: bool,
) -> None:
    """Turn a checkpoint of the pix2pix family into a bundle.

    The architecture is recognised from the names of the tensors: resnets (also antialiased ones of CUT and zero-padded
    ones of DeepLIIF) and U-Nets (also BCI's attention_unet_32), with BatchNorm or InstanceNorm, with or without
    dropout. Wrappers of training programs do not matter. No code from FILE is run.
    """
    required = {"--mpp": mpp, "--stain": stain}
    if missing := [option for option, value in required.items() if not value]:
        raise click.UsageError(
            f"{file.name}: a checkpoint does not state this, please give {', '.join(missing)} "
            '(for BCI: --mpp 0.46 --stain "HER2 IHC")'
        )
    from wsi_ihc.generators import generator_name, import_checkpoint

    facts = {"mpp": mpp, "stain": stain, "licence": licence, "training_data": training_data, "description": description}
    path, card = import_checkpoint(file, output or file.stem, part=part, name=name, overwrite=overwrite, **facts)
    click.echo(
        f"{path}: {card.architecture.summary}, {card.mpp:g} um/px; use it with --generator {generator_name(path)}"
    )


@weights.command("remove")
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def remove_command(name: str, yes: bool) -> None:
    """Remove the generator NAME that this user installed. Generators that came with wsi-ihc stay."""
    from wsi_ihc.generators.library import removable_bundle

    path = removable_bundle(name)
    if not yes:
        click.confirm(f"Remove {path}?", abort=True, err=True)
    path.unlink()
    click.echo(f"removed {path}")


def _row(card: GeneratorCard) -> tuple[str, ...]:
    resolution = "any" if card.mpp is None else f"{card.mpp:g}"
    name = f"{card.name} (default)" if card.name == GeneratorSettings().name else card.name
    return name, card.stain, card.evidence, resolution, card.architecture.label, card.licence


def _table(rows: list[tuple[str, ...]]) -> str:
    """Columns as wide as their longest entry."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
