"""``wsi-ihc view``: a slide and its virtual stain in a browser, locked to each other."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsi_ihc.cli.options import SLIDE
from wsi_ihc.cli.terminal import say
from wsi_ihc.errors import SettingsError

if TYPE_CHECKING:
    from wsi_ihc.viewer.export import Kind
    from wsi_ihc.viewer.finding import CaseFiles
    from wsi_ihc.viewer.server import Viewer


@click.command()
@click.argument("paths", nargs=-1, required=True, type=SLIDE, metavar="SLIDE [OUT.ome.tiff] …")
@click.option("--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="0, the default, takes a free one.")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@click.option("--export", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Write the pages into DIR.")
@click.option("--single-folder", "kind", flag_value="folder", default="folder", help="Export: opens by a double click.")
@click.option("--range", "kind", flag_value="range", help="Export: few files, for a web server that knows ranges.")
def view(paths: tuple[Path, ...], port: int, no_browser: bool, folder: Path | None, kind: Kind) -> None:
    """Show SLIDE beside its virtual stain in a browser: side by side, behind a curtain, or laid over each other.

    OUT.ome.tiff may be left out where it lies beside SLIDE, and may be still in the making. Further scans of the same
    field, such as the real IHC, stand beside them. A folder shows all its slides.

    \b
    wsi-ihc view slide.svs slide_ihc.ome.tiff
    wsi-ihc view cohort/
    wsi-ihc view slide.svs --export for_a_colleague/
    """
    cases, title = _cases(paths)
    if folder:
        _export(cases, title, folder, kind)
        return
    from wsi_ihc.viewer.server import Viewer

    viewer = Viewer(cases, title=title, port=port)
    if not title:
        viewer.cases.get(0)  # a slide that cannot be read is refused here, and not in the browser
    asyncio.run(_serve(viewer, browser=not no_browser))


def _cases(paths: tuple[Path, ...]) -> tuple[list[CaseFiles], str]:
    """The cases to show, and the title of their page where they are a cohort."""
    from wsi_ihc.viewer.finding import case_of, cases_in, is_cohort

    if not is_cohort(paths[0]):
        return [case_of(paths)], ""
    if len(paths) > 1:
        raise SettingsError(f"{paths[1]}: a folder is shown alone; give either a folder or one slide")
    cases = list(cases_in(paths[0]))
    if not cases:
        raise SettingsError(f"{paths[0]}: no output of wsi-ihc in this folder; name the slide itself")
    return cases, paths[0].absolute().name or "slides"


def _export(cases: list[CaseFiles], title: str, folder: Path, kind: Kind) -> None:
    from wsi_ihc.viewer.export import export, tiles_of

    with click.progressbar(length=tiles_of(cases), label="tiles", file=sys.stderr) as bar:
        page = export(cases, folder, kind, title=title, advance=bar.update)
    say(page)
    if kind == "range":
        say("Put the folder on a web server that answers range requests; it does not open by a double click.", err=True)


async def _serve(viewer: Viewer, *, browser: bool) -> None:
    """Until Ctrl-C."""
    from wsi_ihc.viewer.browser import opened

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    say(viewer.address)
    say("Open this address in a browser on this machine. Ctrl-C ends the viewer.", err=True)
    with opened(viewer.address) if browser else nullcontext():
        await viewer.serve(ended)
