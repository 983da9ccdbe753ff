"""The straightforward script that wsi-ihc is measured against: what one writes after reading the paper's test code.

Reads 1,024 px tiles with OpenSlide, runs the generator as published (float32, NCHW, InstanceNorm by tile, batch 1, no
overlap), keeps the whole plane in memory and lets tifffile write a tiled JPEG pyramid.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import openslide
import tifffile
import torch
from torch import nn

TILE_PX = 1024


@torch.no_grad()
def stain_slide(source: Path, target: Path, network: nn.Module) -> float:
    """Stains ``source`` into ``target``; returns the seconds that the generator alone took."""
    slide = openslide.OpenSlide(str(source))
    width, height = slide.dimensions
    columns, rows = -(-width // TILE_PX), -(-height // TILE_PX)
    plane = np.full((rows * TILE_PX, columns * TILE_PX, 3), 255, np.uint8)
    network_seconds = 0.0
    for row in range(rows):
        for column in range(columns):
            top, left = row * TILE_PX, column * TILE_PX
            tile = np.asarray(slide.read_region((left, top), 0, (TILE_PX, TILE_PX)).convert("RGB"))
            started = time.perf_counter()
            tensor = torch.from_numpy(tile.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
            stained = network(tensor)[0].permute(1, 2, 0)
            network_seconds += time.perf_counter() - started
            plane[top : top + TILE_PX, left : left + TILE_PX] = ((stained + 1) * 127.5).clamp(0, 255).byte().numpy()
    write_pyramid(plane[:height, :width], target)
    return network_seconds


def write_pyramid(plane: np.ndarray, target: Path) -> None:
    """Every level by 2 x 2 means, tiles of 512 px, JPEG quality 85."""
    levels = [plane]
    while max(levels[-1].shape) > 512:
        finer = levels[-1][: levels[-1].shape[0] // 2 * 2, : levels[-1].shape[1] // 2 * 2]
        levels.append(finer.reshape(finer.shape[0] // 2, 2, finer.shape[1] // 2, 2, 3).mean((1, 3)).astype(np.uint8))
    options = {"tile": (512, 512), "compression": "jpeg", "compressionargs": {"level": 85}, "photometric": "rgb"}
    with tifffile.TiffWriter(target, bigtiff=True) as writer:
        writer.write(levels[0], subifds=len(levels) - 1, **options)
        for level in levels[1:]:
            writer.write(level, subfiletype=1, **options)


def main() -> None:
    """Command line: SOURCE TARGET [--generator BUNDLE]."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--generator", required=True)
    arguments = parser.parse_args()

    from wsi_ihc.generators import load_generator

    network = load_generator(arguments.generator).build()
    # InstanceNorm by tile needs no help; BatchNorm as the published test script runs it, without --eval.
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
    started = time.perf_counter()
    network_seconds = stain_slide(arguments.source, arguments.target, network)
    print(f"total {time.perf_counter() - started:.2f} s, generator {network_seconds:.2f} s")


if __name__ == "__main__":
    main()
