"""What the benchmarks share: the machine in words, a timed child process, a drawn slide, a full-size generator."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tifffile

from wsi_ihc.generators.device import describe_device


def machine() -> str:
    """One line that belongs above every table."""
    import torch

    return f"{describe_device(torch.device('cpu'))}, {os.cpu_count()} cores, torch {torch.__version__}"


def timed(command: Sequence[str]) -> float:
    """Wall seconds of a child process that must succeed."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def convert(source: Path, output: Path, *options: str) -> tuple[float, dict[str, Any]]:
    """Wall seconds of ``wsi-ihc convert``, start of the interpreter included, and the account in its sidecar."""
    command = [sys.executable, "-m", "wsi_ihc", "convert", str(source), "-o", str(output), "--overwrite", "--quiet"]
    seconds = timed([*command, *options])
    sidecar = output.with_name(output.name.removesuffix(".ome.tiff") + ".json")
    return seconds, json.loads(sidecar.read_text())["run"]


def draw_slide(folder: Path, side_px: int, share: float = 1.0) -> Path:
    """A phantom of ``side_px`` squared, of which ``share`` is tissue; drawn once and kept."""
    path = folder / f"phantom_{side_px}_{share:g}.tiff"
    if not path.exists():
        options = ["--her2", "2+", "--size", f"{side_px}x{side_px}", "--seed", "5", "--sparse", str(share), "--quiet"]
        timed([sys.executable, "-m", "wsi_ihc", "phantom", "-o", str(path), *options])
    return path


def repeated_slide(folder: Path, side_px: int, share: float = 1.0, mpp: float = 0.5, period_px: int = 4096) -> Path:
    """A slide of any size from the encoded tiles of one phantom laid side by side: made in seconds.

    ``share`` of it is tissue; it says that it was scanned at ``mpp`` um/px. Every tile is decoded, stained and encoded
    as if it were the only one of its kind; ``side_px`` is rounded up to whole phantoms.
    """
    kind = "" if (share, mpp) == (1.0, 0.5) else f"_{share:g}_{mpp:g}um"
    path = folder / f"repeated_{side_px}{kind}.tiff"
    if path.exists():
        return path
    times = -(-side_px // period_px)
    phantom = draw_slide(folder, period_px, share)
    with tifffile.TiffFile(phantom) as source, tifffile.TiffWriter(path, bigtiff=True) as target:
        for level, page in enumerate(source.pages):
            assert isinstance(page, tifffile.TiffPage)
            side = page.imagewidth * times
            options = (
                {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "centimeter"}
                if level == 0
                else {"subfiletype": 1}
            )
            target.write(
                _repeated_tiles(page, times),
                shape=(side, side, 3),
                dtype="uint8",
                tile=(page.tilelength, page.tilewidth),
                compression="jpeg",
                photometric="ycbcr",
                subsampling=(2, 2),
                metadata=None,
                **options,
            )
    return path


def _repeated_tiles(page: tifffile.TiffPage, times: int) -> Iterator[bytes]:
    columns = page.imagewidth // page.tilewidth
    handle = page.parent.filehandle
    tiles = []
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        handle.seek(offset)
        tiles.append(handle.read(count))
    for _ in range(times):
        for start in range(0, len(tiles), columns):
            yield from tiles[start : start + columns] * times


def full_size_generator(folder: Path, norm: str) -> Path:
    """resnet_9blocks with 64 channels, random weights, at 0.5 um/px."""
    from wsi_ihc.generators import Architecture, GeneratorCard, build_network, initialise, save_bundle

    path = folder / f"resnet_9blocks_{norm}.safetensors"
    if not path.exists():
        architecture = Architecture(kind="resnet", blocks=9, base_channels=64, norm=norm, dropout=norm == "batch")
        network = initialise(build_network(architecture), 1)
        card = GeneratorCard(name=path.stem, architecture=architecture, mpp=0.5, stain="benchmark")
        save_bundle(path, card, network.state_dict())
    return path


def median(values: Sequence[float]) -> float:
    """The figure to quote."""
    return statistics.median(values)
