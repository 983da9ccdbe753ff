"""``wsi-ihc info``: describes a slide, and how convert would read it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsi_ihc.cli.options import SLIDE, conversion_settings, some_conversion_options
from wsi_ihc.machine.text import json_text

if TYPE_CHECKING:
    from rich.table import Table

    from wsi_ihc.slides import SlideReader


@click.command()
@click.argument("slide", type=SLIDE)
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
@click.option(
    "--at",
    "resolution__mpp",
    type=float,
    default=0.5,
    show_default=True,
    metavar="UM",
    help="Resolution that the generator wants.",
)
@some_conversion_options("slide__mpp", "slide__scene", "slide__plane", "slide__reader")
def info(slide: Path, as_json: bool, **values: Any) -> None:
    """Describe SLIDE: reader, vendor, levels, pixel size, and the level that convert would read.

    A slide that convert would refuse is refused here too, with the same message.
    """
    from contextlib import closing

    from wsi_ihc.slides import open_slide

    settings = conversion_settings(values)
    assert settings.resolution.mpp is not None
    with closing(open_slide(slide, settings.slide)) as opened:
        facts = _facts(opened, settings.resolution.mpp)
    if as_json:
        click.echo(json_text(facts))
    else:
        _show(facts)


def _facts(slide: SlideReader, wanted: float) -> dict[str, Any]:
    """Facts about the slide, as plain data for JSON."""
    from wsi_ihc.slides import check_brightfield

    stain = check_brightfield(slide, any_stain=True)
    return {
        "path": str(slide.path),
        "reader": slide.name,
        "vendor": slide.properties.get("vendor"),
        "objective": slide.properties.get("objective"),
        "mpp": slide.mpp,
        "levels": [
            {
                "width": level.size.width,
                "height": level.size.height,
                "downsample": level.downsample,
                "mpp": slide.mpp * level.downsample if slide.mpp else None,
            }
            for level in slide.levels
        ],
        "scenes": [
            {"name": scene.name, "width": scene.size.width, "height": scene.size.height}
            for scene in slide.contents.scenes
        ],
        "scene": slide.contents.scene,
        "planes": slide.contents.planes,
        "plane": slide.contents.plane,
        "working": _working(slide, wanted),
        "properties": dict(slide.properties),
        "notices": [str(notice) for notice in (*slide.notices, *stain)],
    }


def _working(slide: SlideReader, wanted: float) -> dict[str, Any]:
    """The plane that a generator trained at ``wanted`` um/px would see, or the reason why there is none."""
    from wsi_ihc.errors import ResolutionError
    from wsi_ihc.slides import SlideView

    try:
        view = SlideView.at(slide, wanted)
    except ResolutionError as error:
        return {"wanted": wanted, "refused": str(error).removeprefix(f"{slide.path}: ")}
    return {
        "wanted": wanted,
        "mpp": view.mpp,
        "width": view.size.width,
        "height": view.size.height,
        "level": view.level,
        "resampled": view.resampled,
    }


def _show(facts: dict[str, Any]) -> None:
    """Prints the facts: a table of levels on a terminal, plain lines in a file or a pipe."""
    from rich.console import Console

    objective = f"{facts['objective']}x" if facts["objective"] else "unknown"
    mpp = f"{facts['mpp']:.4g} um/px" if facts["mpp"] else "unknown, give it with --mpp"
    console = Console(highlight=False, soft_wrap=True)
    console.print(facts["path"], style="bold", markup=False)
    for name, value in (
        ("reader", facts["reader"]),
        ("vendor", facts["vendor"] or "unknown"),
        ("objective", objective),
        ("pixel size", mpp),
        ("convert", _sentence(facts["working"])),
    ):
        console.print(f"  {name:<11}{value}", markup=False)
    if console.is_terminal:
        console.print(_table(facts["levels"]))
    else:
        for number, level in enumerate(facts["levels"]):
            console.print(f"  level {number:<5}{'  '.join(_cells(level))}", markup=False)
    for number, scene in enumerate(facts["scenes"] if len(facts["scenes"]) > 1 else (), start=1):
        read = "  read" if number == facts["scene"] else ""
        console.print(
            f"  scene {number:<5}{scene['width']} x {scene['height']} px  {scene['name']}{read}", markup=False
        )
    if facts["planes"] > 1:
        console.print(f"  {'planes':<11}{facts['planes']}, plane {facts['plane']} is read", markup=False)
    for notice in facts["notices"]:
        console.print(f"  note: {notice}", style="yellow", markup=False)


def _sentence(working: dict[str, Any]) -> str:
    if "refused" in working:
        return f"refused: {working['refused']}"
    how = "resampled by area" if working["resampled"] else "as it is"
    return (
        f"for a generator at {working['wanted']:g} um/px: level {working['level']} {how}, "
        f"{working['width']} x {working['height']} px at {working['mpp']:.4g} um/px"
    )


def _cells(level: dict[str, Any]) -> tuple[str, str, str]:
    mpp = f"{level['mpp']:.4g} um/px" if level["mpp"] else "? um/px"
    return f"{level['width']} x {level['height']} px", f"1/{level['downsample']:.6g}", mpp


def _table(levels: list[dict[str, Any]]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table("level", "size", "scale", "pixel size", box=box.SIMPLE_HEAD)
    for column in table.columns:
        column.justify = "right"
    for number, level in enumerate(levels):
        table.add_row(str(number), *_cells(level))
    return table
