"""The whole path against (a) the generator's own compute time for the same blocks and (b) the published way.

    python benchmarks/whole_path.py WORKFOLDER [--norm batch] [--side 3072] [--core 1024] [--backend torch]
                                               [--repeats 3] [--slide FILE]

All three in turn, in one run, so that a machine that drifts drifts for all; medians and ratios are printed.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from runs import convert, draw_slide, full_size_generator, machine, median, timed

from wsi_ihc import SlideView, open_slide
from wsi_ihc.config import ConversionSettings, load_settings
from wsi_ihc.conversion.staining import load_stainer
from wsi_ihc.pyramid.blocks import BlockGrid
from wsi_ihc.pyramid.geometry import Size


def generator_alone(source: Path, bundle: Path, core_px: int, backend: str) -> float:
    """Seconds that the stainer takes for every block of the slide, nothing else running."""
    overrides = {"generator.name": str(bundle), "compute.backend": backend}
    settings = load_settings(ConversionSettings, overrides=overrides)
    stainer = load_stainer(settings, None)
    slide = open_slide(source)
    view = SlideView.at(slide, 0.5)
    grid = BlockGrid(Size(*view.size), core_px, stainer.halo_px)
    stainer(view.read(grid.block(0, 0).window)[None], halo_px=grid.halo_px)
    seconds = 0.0
    for tile in grid:
        window = np.stack([view.read(tile.window)])
        started = time.perf_counter()
        stainer(window, halo_px=grid.halo_px)
        seconds += time.perf_counter() - started
    slide.close()
    return seconds


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--norm", choices=["batch", "instance"], default="batch")
    parser.add_argument("--side", type=int, default=3072)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--core", type=int, default=1024, help="Side of a block, pixels.")
    parser.add_argument("--backend", choices=["torch", "openvino"], default="torch")
    parser.add_argument("--without-published", action="store_true", help="Leave (b) out: it takes most of the time.")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    source = arguments.slide or draw_slide(arguments.folder, arguments.side)
    bundle = full_size_generator(arguments.folder, arguments.norm)
    published = [sys.executable, str(Path(__file__).with_name("published_way.py")), str(source)]
    published += [str(arguments.folder / "published.tiff"), "--generator", str(bundle)]

    options = ["--tissue", "none", "--backend", arguments.backend, "--set", f"tiling.core_px={arguments.core}"]
    alone, whole, staining, others, peak = [], [], [], [], []
    for repeat in range(arguments.repeats):
        # Calibration is for the whole slide; the generator's own time is the same for both norms once folded.
        batch_norm = full_size_generator(arguments.folder, "batch")
        alone.append(generator_alone(source, batch_norm, arguments.core, arguments.backend))
        output = arguments.folder / "whole.ome.tiff"
        seconds, account = convert(source, output, "--generator", str(bundle), *options)
        whole.append(seconds)
        staining.append(account["seconds"]["stain"])
        peak.append(account["peak_memory_mb"])
        print(f"{repeat}: alone {alone[-1]:.1f}, whole {whole[-1]:.1f} s", end="", flush=True)
        if not arguments.without_published:
            others.append(timed(published))
            print(f", published {others[-1]:.1f} s", end="")
        print(flush=True)
    print(
        f"\n{machine()}; {source.name}, {arguments.norm} norm, blocks of {arguments.core} px, {arguments.backend}, "
        f"{arguments.repeats} repeats, medians\n"
    )
    print("| | seconds | ratio |\n|---|---|---|")
    print(f"| (a) generator alone, same blocks | {median(alone):.1f} | 1.00 |")
    rows = {
        "staining stage": staining,
        "`wsi-ihc convert`, process start to end": whole,
        "(b) the published way": others,
    }
    for name, values in ((name, values) for name, values in rows.items() if values):
        print(f"| {name} | {median(values):.1f} | {median([v / a for v, a in zip(values, alone, strict=True)]):.2f} |")
    if others:
        print(f"\n(b) over convert: {median([b / c for b, c in zip(others, whole, strict=True)]):.1f} times")
    print(f"\npeak memory of convert: {max(peak):.0f} MB")


if __name__ == "__main__":
    main()
