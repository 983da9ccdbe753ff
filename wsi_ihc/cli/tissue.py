"""``wsi-ihc tissue``: writes the tissue mask of a slide, to look at, to edit in QuPath and to give back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsi_ihc.cli.options import OUTPUT, SLIDE, conversion_settings, settings_options, some_conversion_options
from wsi_ihc.cli.terminal import say
from wsi_ihc.errors import OutputError, SettingsError, UnsupportedSlideError
from wsi_ihc.machine.atomic import write_atomically
from wsi_ihc.machine.text import json_text

if TYPE_CHECKING:
    from wsi_ihc.slides import SlideView
    from wsi_ihc.tissue import TissueMask

_GEOJSON = (".geojson", ".json")
_LOOK_PX = 1600
"""Longer side of an overlay, at least, where the slide has so many pixels."""


@click.command()
@click.argument("slide", type=SLIDE)
@click.option(
    "-o",
    "--output",
    type=OUTPUT,
    required=True,
    metavar="FILE",
    help="Outlines for QuPath (.geojson), or a mask (.png).",
)
@click.option("--overlay", type=OUTPUT, metavar="FILE.png", help="Also write a picture of the slide with the outline.")
@some_conversion_options("slide__mpp", "slide__scene", "slide__plane", "tissue__source", "slide__reader")
@click.option("--overwrite", is_flag=True, help="Replace files that exist, even a mask that was edited by hand.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@settings_options
def tissue(slide: Path, output: Path, overlay: Path | None, overwrite: bool, as_json: bool, **values: Any) -> None:
    """Find the tissue of SLIDE and write its outline, as GeoJSON for QuPath or as a PNG mask.

    \b
    wsi-ihc tissue slide.svs -o slide.geojson --overlay look.png
    """
    import time
    from contextlib import closing

    from wsi_ihc.slides import SlideView, check_brightfield, open_slide
    from wsi_ihc.tissue import find_tissue

    settings = conversion_settings(values)
    _check_outputs(output, overlay, overwrite)
    _check_inputs_stay([path for path in (output, overlay) if path], [slide, Path(settings.tissue.source)])
    started = time.perf_counter()
    with closing(open_slide(slide, settings.slide)) as reader:
        for notice in (*reader.notices, *check_brightfield(reader, any_stain=True)):
            say(f"{slide.name}: {notice}", err=True)
        view = SlideView.at(reader, None)
        mask = find_tissue(view, settings.tissue)
        seconds = time.perf_counter() - started
        if overlay:
            _write_overlay(mask, view, settings.tissue.mpp, overlay)
    if not mask.pixels.any():
        raise UnsupportedSlideError(
            f"{slide}: no tissue found, {output} was not written; --overlay look.png shows the slide as it was seen"
        )
    _write(mask, output)
    facts = _facts(mask, view)
    if as_json:
        paths = {"slide": str(slide), "output": str(output), "overlay": str(overlay) if overlay else None}
        click.echo(json_text(paths | facts | {"seconds": round(seconds, 2)}))
    else:
        say(f"{slide.name}: {_sentence(facts)}, {seconds:.1f} s: {output}")


def _check_outputs(output: Path, overlay: Path | None, overwrite: bool) -> None:
    if output.suffix.lower() not in (*_GEOJSON, ".png"):
        raise SettingsError(f"{output}: the name must end in .geojson or .png")
    if overlay and overlay.suffix.lower() != ".png":
        raise SettingsError(f"{overlay}: the name must end in .png")
    if overlay and overlay.absolute() == output.absolute():
        raise SettingsError(f"{output}: the mask and the overlay cannot have one name; choose another for --overlay")
    for path in (output, overlay):
        if path and path.exists() and not overwrite:
            raise OutputError(f"{path}: exists already; give --overwrite to replace it, or another name")


def _check_inputs_stay(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Refuses to write over the slide, or over the outlines given with --tissue."""
    for output, given in product(outputs, inputs):
        if output.exists() and given.exists() and output.samefile(given):
            raise SettingsError(f"{output}: is an input of this command; choose another name")


def _write(mask: TissueMask, output: Path) -> None:
    from wsi_ihc.tissue import write_geojson
    from wsi_ihc.tissue.pictures import mask_picture, png

    if output.suffix.lower() in _GEOJSON:
        write_geojson(mask, output, scale=1.0)
    else:
        write_atomically(output, png(mask_picture(mask)))


def _write_overlay(mask: TissueMask, view: SlideView, mpp: float, overlay: Path) -> None:
    from wsi_ihc.tissue.finding import ASSUMED_MPP, read_thumbnail, thumbnail_view
    from wsi_ihc.tissue.pictures import overlay_picture, png

    # At the resolution of the mask a small slide would be too small to judge the outline on it.
    mpp = min(mpp, max(view.size) * (view.mpp or ASSUMED_MPP) / _LOOK_PX)
    write_atomically(overlay, png(overlay_picture(mask, read_thumbnail(thumbnail_view(view.slide, mpp)))))


def _facts(mask: TissueMask, view: SlideView) -> dict[str, float]:
    """Share of the slide under tissue, margin included; lengths and area too where the pixel size is known."""
    from wsi_ihc.pyramid.geometry import Region

    share = mask.fraction(Region(0, 0, *mask.size))
    if view.mpp is None:
        return {"tissue_fraction": share}
    height, width = (side * view.mpp / 1000 for side in mask.size)
    return {"tissue_fraction": share, "width_mm": width, "height_mm": height, "tissue_mm2": share * height * width}


def _sentence(facts: dict[str, float]) -> str:
    share = f"tissue {facts['tissue_fraction']:.1%}"
    if "tissue_mm2" not in facts:
        return share
    size = f"{facts['width_mm']:.1f} x {facts['height_mm']:.1f} mm"
    return f"{share} of {size}, {facts['tissue_mm2']:.2f} mm² with margin"
