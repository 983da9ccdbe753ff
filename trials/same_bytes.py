"""Two checkouts of wsi-ihc convert the same slides: are their outputs the same, byte for byte?

python trials/same_bytes.py OLD_CHECKOUT NEW_CHECKOUT WORKFOLDER [--side 2000]

Both run in the environment of this Python, so that versions of libraries are the same. Prints a Markdown table and
exits with 1 when anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tifffile

_BUNDLE = """
import sys
from wsi_ihc.generators import Architecture, GeneratorCard, build_network, initialise, save_bundle
architecture = Architecture(kind="resnet", norm="instance", blocks=3, base_channels=16, dropout=False)
network = initialise(build_network(architecture), 7)
for parameter in network.parameters():
    parameter.data *= 4
card = GeneratorCard(name="instance", architecture=architecture, mpp=0.5, stain="x")
save_bundle(sys.argv[1], card, network.state_dict())
"""


@dataclass(frozen=True)
class Case:
    """One conversion, the same for both checkouts."""

    generator: str
    compression: str
    core_px: int
    resumed: bool

    @property
    def options(self) -> list[str]:
        settings = [f"tiling.core_px={self.core_px}", f"output.compression={self.compression}"]
        return ["--generator", self.generator, "--quiet", *(word for value in settings for word in ("--set", value))]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=2000)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    checkouts = (given.old.absolute(), given.new.absolute())
    print("| what | file | encoded tiles |\n|---|---|---|")
    drawn = [_draw(checkout, given.folder / name, given.side) for checkout, name in zip(checkouts, "ab", strict=True)]
    same = [
        _row(f"phantom, {kind}", *files) for kind, files in zip(("H&E", "IHC"), zip(*drawn, strict=True), strict=True)
    ]
    bundle = given.folder / "instance.safetensors"
    if not bundle.exists():
        _run(checkouts[0], [sys.executable, "-c", _BUNDLE, str(bundle)])
    for case in _cases(str(bundle)):
        outputs = [_convert(checkout, drawn[0][0], given.folder, case) for checkout in checkouts]
        how = "resumed" if case.resumed else "at once"
        same.append(_row(f"{Path(case.generator).stem}, {case.compression}, {case.core_px} px, {how}", *outputs))
    sys.exit(0 if all(same) else 1)


def _cases(bundle: str) -> Iterator[Case]:
    generators = ("identity", "recolour", "her2-demo", bundle)
    for generator, compression in itertools.product(generators, ("jpeg", "deflate")):
        for core_px, resumed in ((512, False), (512, True), (1024, False)):
            yield Case(generator, compression, core_px, resumed)


def _draw(checkout: Path, name: Path, side: int) -> tuple[Path, Path]:
    slide, pair = name.with_name(f"phantom_{name.name}.tiff"), name.with_name(f"phantom_{name.name}_ihc.tiff")
    if not slide.exists():
        options = ["--size", f"{side}x{side}", "--seed", "5", "--pair", str(pair), "--quiet"]
        _run(checkout, [sys.executable, "-m", "wsi_ihc", "phantom", "-o", str(slide), *options])
    return slide, pair


def _convert(checkout: Path, slide: Path, folder: Path, case: Case) -> Path:
    output = folder / f"{hashlib.sha256(str(checkout).encode()).hexdigest()[:6]}.ome.tiff"
    command = [sys.executable, "-m", "wsi_ihc", "convert", str(slide), "-o", str(output), "--overwrite", *case.options]
    store = Path(f"{output}.blocks.zarr")
    shutil.rmtree(store, ignore_errors=True)
    if case.resumed:
        _run_and_kill(checkout, command, store / "blocks")
        assert store.exists(), "the run ended before it was killed"
    _run(checkout, command)
    return output


def _run_and_kill(checkout: Path, command: list[str], blocks: Path) -> None:
    """Kills the run and its children when two blocks are finished."""
    with subprocess.Popen(command, env=_environment(checkout), start_new_session=True) as process:
        while process.poll() is None:
            if blocks.exists() and sum(path.name[0].isdigit() for path in blocks.iterdir()) >= 2:
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.002)


def _run(checkout: Path, command: list[str]) -> None:
    subprocess.run(command, check=True, env=_environment(checkout), stdout=subprocess.DEVNULL)


def _environment(checkout: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(checkout)}


def _row(what: str, old: Path, new: Path) -> bool:
    same = old.read_bytes() == new.read_bytes()
    tiles = same or _tiles(old) == _tiles(new)
    print(f"| {what} | {_word(same)} | {_word(tiles)} |", flush=True)
    return same


def _word(same: bool) -> str:
    return "same" if same else "**different**"


def _tiles(path: Path) -> list[bytes]:
    """The encoded tiles of all levels, without what the file says about itself."""
    with tifffile.TiffFile(path) as tiff:
        pages: list[Any] = list(tiff.series[0].levels)
        pages = [level.keyframe for level in pages]
        found = []
        for page in pages:
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
                tiff.filehandle.seek(offset)
                found.append(tiff.filehandle.read(count))
        return found


if __name__ == "__main__":
    main()
