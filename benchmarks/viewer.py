"""How fast the viewer shows a whole slide in a real browser, and how much memory its server takes.

    python benchmarks/viewer.py WORKFOLDER [--views N] [--write]

A slide of 100,000 x 80,000 px at 0.25 um/px, all of it tissue, and its virtual stain at 0.5 um/px: the tiles of one
phantom laid side by side. It is made three times: with every level, with the levels of a scanner, and with one level.
``--write`` puts the table into docs/viewer.md. Needs playwright and Chromium, and 6 GB of disk.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import psutil
import tifffile
from pages import write_between
from playwright.sync_api import Page, sync_playwright
from runs import convert, machine, timed

from wsi_ihc.output.ometiff import Provenance, write_ome_tiff
from wsi_ihc.pyramid.codecs import JpegTiles
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.pyramid.levels import TILE_PX, Pixels, halve, level_sizes
from wsi_ihc.pyramid.tiff import write_level

PAGE = Path(__file__).parents[1] / "docs" / "viewer.md"
SLIDE, MPP = Size(80_000, 100_000), 0.25
PERIOD_PX = 4096
LEVELS = {"every level": range(9), "levels 1/4, 1/16, 1/64": (0, 2, 4, 6), "one level": (0,)}
CHROMIUM = "/usr/bin/chromium"
SCREEN = {"width": 1600, "height": 1000}
COARSEST = 60
"""Pixels of the slide on one of the screen, in the coarsest random view."""
PANES = "wsiIhc.panes.filter((pane) => !pane.element.hidden).map((pane) => pane.items[pane.number])"
DRAWN = f"() => document.body?.dataset.ready !== undefined && {PANES}.every((item) => item.lastDrawn.length > 0)"
SHARP = f"() => document.body?.dataset.ready !== undefined && {PANES}.every((item) => item.getFullyLoaded())"


@dataclass(frozen=True)
class Repeated:
    """A `TilePyramid`: a small square of tissue laid side by side over a plane of ``size``, true on every level."""

    square: Pixels
    size: Size
    mpp: float
    codec: JpegTiles = field(default_factory=JpegTiles)

    @cached_property
    def levels(self) -> tuple[Size, ...]:
        return level_sizes(self.size)

    def tile(self, level: int, row: int, column: int) -> bytes:
        rows = self._tiles[level]
        return rows[row % len(rows)][column % len(rows)]

    @cached_property
    def _tiles(self) -> list[list[list[bytes]]]:
        """Encoded tiles of one square by level, row and column."""
        made, pixels = [], self.square
        for _ in self.levels:
            steps = range(0, len(pixels), TILE_PX)
            made.append([[self.codec.encode(pixels[y : y + TILE_PX, x : x + TILE_PX]) for x in steps] for y in steps])
            pixels = halve(pixels if len(pixels) > TILE_PX else np.tile(pixels, (2, 2, 1)))
        return made


def main() -> None:
    """Makes the slides, measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--views", type=int, default=1000, help="random views of the first slide; 100 of the others")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    virtual = make_virtual(arguments.folder)
    rows = []
    for number, kind in enumerate(LEVELS):
        rows.append(measure(kind, make_slide(arguments.folder, kind), virtual, arguments.views if number == 0 else 100))
        print(" | ".join(rows[-1]), flush=True)
    heads = ("slide", "address", "first picture", "all sharp", "a jump", "the slowest of 20", "server's memory")
    lines = [f"{machine()}, Chromium without a GPU, window of {SCREEN['width']} x {SCREEN['height']} px.", ""]
    lines += ["| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *rows)]
    print("\n".join(lines))
    if arguments.write:
        write_between(PAGE, "speed", "\n".join(lines))


def make_square(folder: Path) -> Path:
    """The phantom that is repeated."""
    path = folder / "square.tiff"
    if not path.exists():
        side = f"{PERIOD_PX}x{PERIOD_PX}"
        drawn = ["--her2", "2+", "--size", side, "--mpp", str(MPP), "--seed", "5", "--sparse", "1", "--quiet"]
        timed([sys.executable, "-m", "wsi_ihc", "phantom", "-o", str(path), *drawn])
    return path


def make_slide(folder: Path, kind: str) -> Path:
    """The large slide with its levels of that kind."""
    path = folder / f"large_{len(LEVELS[kind])}.tiff"
    if not path.exists():
        pyramid = Repeated(tifffile.imread(make_square(folder), key=0), SLIDE, MPP)
        with tifffile.TiffWriter(path, bigtiff=True) as tiff:
            for level in LEVELS[kind]:
                write_level(tiff, pyramid, level, mpp=MPP)
    return path


def make_virtual(folder: Path) -> Path:
    """The virtual stain of the large slide."""
    path, small = folder / "large_ihc.ome.tiff", folder / "square_ihc.ome.tiff"
    if not path.exists():
        convert(make_square(folder), small, "--generator", "recolour", "--mpp", str(MPP))
        plane = Size(SLIDE.height // 2, SLIDE.width // 2)
        made = Provenance(
            source_name="large.tiff",
            source_width=SLIDE.width,
            source_height=SLIDE.height,
            source_mpp=MPP,
            reader="tiff",
            level=0,
            scale=2.0,
            mpp=2 * MPP,
            generator="recolour",
            normalisation="running",
            tissue_source="none",
            tissue_fraction=1,
            halo_px=0,
            device="cpu",
            precision="float32",
            compression="jpeg",
        )
        write_ome_tiff(Repeated(tifffile.imread(small, key=0), plane, made.mpp), path, made)
    return path


def measure(kind: str, slide: Path, virtual: Path, views: int) -> Sequence[str]:
    """One row of the table."""
    with browser() as page, server(slide, virtual) as (process, address, printed):
        first, sharp = first_view(page, address)
        seconds, megabytes = browse(page, views, process)
    twentieths = statistics.quantiles(seconds, n=20)
    memory = f"{megabytes[len(megabytes) // 10]:.0f} MB after {views // 10} views, {megabytes[-1]:.0f} MB after {views}"
    return (
        kind,
        f"{printed:.2f} s",
        f"{first:.2f} s",
        f"{sharp:.2f} s",
        f"{statistics.median(seconds):.2f} s",
        f"{twentieths[-1]:.2f} s",
        f"{memory}, at most {max(megabytes):.0f} MB",
    )


@contextmanager
def server(slide: Path, virtual: Path) -> Iterator[tuple[psutil.Process, str, float]]:
    """A viewer of its own: the process that serves, its address, and after how many seconds it was printed."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "wsi_ihc", "view", str(slide), str(virtual), "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        address = process.stdout.readline().strip()
        yield psutil.Process(process.pid).children()[0], address, time.perf_counter() - started
    finally:
        process.terminate()
        process.wait()


@contextmanager
def browser() -> Iterator[Page]:
    """A page of Debian's Chromium that has started already."""
    with sync_playwright() as tools:
        chromium = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            page = chromium.new_page(viewport=SCREEN)  # type: ignore[arg-type]
            page.goto("about:blank")
            yield page
        finally:
            chromium.close()


def first_view(page: Page, address: str) -> tuple[float, float]:
    """Seconds from the request until something of both pictures is drawn, and until all is sharp."""
    started = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.wait_for_function(DRAWN, polling=10)
    first = time.perf_counter() - started
    page.wait_for_function(SHARP, polling=10)
    return first, time.perf_counter() - started


def browse(page: Page, views: int, process: psutil.Process) -> tuple[list[float], list[float]]:
    """Seconds until each of so many random views is sharp, and the server's memory after it, MB."""
    chosen, seconds, megabytes = random.Random(0), [], []
    for _ in range(views):
        x, y = chosen.uniform(0, SLIDE.width), chosen.uniform(0, SLIDE.height)
        z = COARSEST ** chosen.random()
        started = time.perf_counter()
        page.evaluate(f"() => wsiIhc.show({{ x: {x}, y: {y}, z: {z} }})")
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        page.wait_for_function(SHARP, polling=10)
        seconds.append(time.perf_counter() - started)
        megabytes.append(process.memory_info().rss / 1e6)
    return seconds, megabytes


if __name__ == "__main__":
    main()
