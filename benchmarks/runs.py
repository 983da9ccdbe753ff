"""What the benchmarks share: the machine in words, a timed child process, a drawn slide, a full-size generator."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
