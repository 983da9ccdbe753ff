"""``wsi-ihc tissue``: the mask of a slide, to look at, to edit in QuPath, and to give back with --tissue."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsi_ihc.cli.options import OUTPUT, SLIDE, conversion_settings, settings_options
from wsi_ihc.errors import OutputError, SettingsError

if TYPE_CHECKING:
    from wsi_ihc.slides import SlideView
    from wsi_ihc.tissue import TissueMask

_GEOJSON = (".geojson", ".json")


@click.command()
@click.argument("slide", type=SLIDE)
@click.option(
    "-o", "--output", type=OUTPUT, required=True, metavar="FILE", help="mask.geojson for QuPath, or mask.png."
)
@click.option("--overlay", type=OUTPUT, metavar="FILE.png", help="Also write the slide with the outline drawn on it.")
@click.option(
    "--mpp",
    "slide__mpp",
    type=float,
    metavar="UM",
    help="Pixel size of the slide's level 0, where the file has none or a wrong one.",
)
@click.option(
    "--tissue", "tissue__source", metavar="auto|none|FILE.geojson", help="Where the mask comes from; auto finds it."
)
@click.option(
    "--reader",
    "slide__reader",
    type=click.Choice(["auto", "openslide", "tiffslide"]),
    help="Library that reads the slide.",
)
@click.option("--overwrite", is_flag=True, help="Replace files that exist; a mask edited by hand may be one.")
@settings_options
def tissue(slide: Path, output: Path, overlay: Path | None, overwrite: bool, **values: Any) -> None:
    """Find the tissue of SLIDE; write its outlines as GeoJSON that QuPath reads, or as PNG.

    \b
    wsi-ihc tissue slide.svs -o slide.geojson --overlay look.png
    """
    import time
    from contextlib import closing

    from wsi_ihc.slides import SlideView, check_brightfield, open_slide
    from wsi_ihc.tissue import find_tissue

    settings = conversion_settings(values)
    _check_outputs(output, overlay, overwrite)
    started = time.perf_counter()
    with closing(open_slide(slide, settings.slide)) as reader:
        for notice in (*reader.notices, *check_brightfield(reader)):
            click.echo(f"{slide.name}: {notice}", err=True)
        view = SlideView.at(reader, None)
        mask = find_tissue(view, settings.tissue)
        seconds = time.perf_counter() - started
        _write(mask, output)
        if overlay:
            _write_overlay(mask, view, settings.tissue.mpp, overlay)
    click.echo(f"{slide.name}: {_summary(mask, view)}, {seconds:.1f} s: {output}")


def _check_outputs(output: Path, overlay: Path | None, overwrite: bool) -> None:
    if output.suffix.lower() not in (*_GEOJSON, ".png"):
        raise SettingsError(f"{output}: the name must end in .geojson or .png")
    if overlay and overlay.suffix.lower() != ".png":
        raise SettingsError(f"{overlay}: the name must end in .png")
    for path in (output, overlay):
        if path and path.exists() and not overwrite:
            raise OutputError(f"{path}: exists; choose another name, or replace it with --overwrite")


def _write(mask: TissueMask, output: Path) -> None:
    from wsi_ihc.tissue import write_geojson
    from wsi_ihc.tissue.pictures import mask_picture, png

    if output.suffix.lower() in _GEOJSON:
        write_geojson(mask, output, scale=1.0)
    else:
        _write_bytes(output, png(mask_picture(mask)))


def _write_overlay(mask: TissueMask, view: SlideView, mpp: float, overlay: Path) -> None:
    from wsi_ihc.tissue.finding import read_thumbnail, thumbnail_view
    from wsi_ihc.tissue.pictures import overlay_picture, png

    _write_bytes(overlay, png(overlay_picture(mask, read_thumbnail(thumbnail_view(view.slide, mpp)))))


def _write_bytes(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from None


def _summary(mask: TissueMask, view: SlideView) -> str:
    from wsi_ihc.geometry import Region

    share = mask.fraction(Region(0, 0, *mask.size))
    if share == 0:
        return "no tissue found"
    if view.mpp is None:
        return f"tissue {share:.1%}"
    height, width = (side * view.mpp / 1000 for side in mask.size)
    return f"tissue {share:.1%} of {width:.1f} x {height:.1f} mm, {share * height * width:.2f} mm² with margin"
