"""Draws the pictures of docs/index.md from the sample slide, by running the program itself.

python scripts/draw_docs_pictures.py        docs/assets/: side by side, tissue overlay, terminal
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).parents[1]
SLIDE = ROOT / "sample_slides" / "breast_phantom.tiff"
ASSETS = ROOT / "docs" / "assets"

Image = NDArray[np.uint8]
"""(height, width, 3) RGB."""

OVERVIEW_PX = 480
"""Width of each overview."""
TOP, LEFT, CROP_PX = 880, 1180, 480
"""A field at full size: a duct, invasive nests, stroma."""
GAP_PX = 8
COLUMNS = 112
QUALITY = 82


def run(arguments: Iterable[str], folder: Path) -> str:
    """The output of the command, with the colours of a terminal ``COLUMNS`` wide."""
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "FORCE_COLOR": "1"}
    command = [sys.executable, "-m", "wsi_ihc", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, stdout=-1, stderr=subprocess.STDOUT, check=True)
    return done.stdout.decode().replace(f"{folder.resolve()}/", "")


def side_by_side(he: Image, ihc: Image) -> Image:
    """Both slides small above, the same field of both at full size below."""
    scale = OVERVIEW_PX / he.shape[1]
    overviews = [cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for image in (he, ihc)]
    crops = [image[TOP : TOP + CROP_PX, LEFT : LEFT + CROP_PX] for image in (he, ihc)]
    return _stacked([_stacked(overviews, axis=1), _stacked(crops, axis=1)], axis=0)


def _stacked(images: list[Image], axis: int) -> Image:
    """Images of one size along ``axis``, a white gap between them."""
    gap_shape = list(images[0].shape)
    gap_shape[axis] = GAP_PX
    gap = np.full(gap_shape, 255, np.uint8)
    return np.concatenate([part for image in images for part in (gap, image)][1:], axis=axis)


def terminal(commands: list[tuple[str, str]]) -> str:
    """An SVG of a terminal in which each command was typed and gave its answer."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        for typed, answer in commands:
            console.print(Text.assemble(("$ ", "bold green"), (typed, "bold")))
            console.print(Text.from_ansi(answer.rstrip()))
            console.print()
    picture = console.export_svg(title="wsi-ihc", theme=MONOKAI, unique_id="terminal")
    # Rich names a font on a server elsewhere; the reader's own fixed-width font does as well.
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL).replace("Fira Code", "ui-monospace")


def write_jpeg(name: str, image: Image) -> None:
    """Writes ``docs/assets/NAME``."""
    cv2.imwrite(str(ASSETS / name), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


def main() -> None:
    """Converts the sample slide in a temporary folder and draws what came of it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "slide.tiff").symlink_to(SLIDE)
        typed = ("info slide.tiff", "convert slide.tiff -o slide_ihc.ome.tiff", "verify slide_ihc.ome.tiff")
        answers = [(f"wsi-ihc {line}", run(line.split(), folder)) for line in typed]
        run(["tissue", "slide.tiff", "-o", "tissue.geojson", "--overlay", "overlay.png"], folder)
        he, ihc = (tifffile.imread(folder / name) for name in ("slide.tiff", "slide_ihc.ome.tiff"))
        overlay = cv2.imread(str(folder / "overlay.png"))[..., ::-1]
    write_jpeg("side_by_side.jpg", side_by_side(he, ihc))
    scale = OVERVIEW_PX / overlay.shape[1]
    write_jpeg("tissue_overlay.jpg", cv2.resize(overlay, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    (ASSETS / "terminal.svg").write_text(terminal(answers), encoding="utf-8")


if __name__ == "__main__":
    main()
