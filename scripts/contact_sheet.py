"""Draws a sheet of small fields: H&E, the output of a generator, the truth.

python scripts/contact_sheet.py                            drawn tissue: H&E, generated, truth; docs/her2_demo.jpg
python scripts/contact_sheet.py --he FOLDER -o sheet.jpg   pictures of your own: H&E, generated

Drawn fields have seeds and looks that no training uses, all four HER2 scores, and are the first of their series with
at least 80 % tissue, without any choice among them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.evaluation.generated import find_bundle, stain_whole, whole_image_stainer
from wsi_ihc.generators import load_generator
from wsi_ihc.measures.her2 import HER2_SCORES
from wsi_ihc.pairs.folders import image_files
from wsi_ihc.pairs.images import read_image
from wsi_ihc.phantom import Look, draw_field
from wsi_ihc.training.examples import scaled

Image = NDArray[np.uint8]
"""(height, width, 3) RGB."""

MPP = 0.5
FIELD_PX, PICTURE_PX = 256, 512
FIELDS_A_SCORE = 2
FIRST_SEED = 90_000_000
"""Far above the seeds of configurations that train."""
MIN_TISSUE = 0.8
GAP_PX, CAPTION_PX = 4, 24


class Row(NamedTuple):
    """Images of one size that belong side by side."""

    caption: str
    images: list[Image]


def drawn_fields(stain: Callable[[Image], Image]) -> Iterator[Row]:
    """Score by score, each field under a look of its own."""
    seeds = count(FIRST_SEED)
    for score in HER2_SCORES:
        for _ in range(FIELDS_A_SCORE):
            seed, (he, ihc) = next(
                (seed, field)
                for seed in seeds
                for field in [draw_field(seed, score, FIELD_PX, MPP, Look.random(seed))]
                if _tissue(field.he) >= MIN_TISSUE
            )
            yield Row(f"HER2 {score}, field {seed}: H&E, generated, truth", [he, stain(he), ihc])


def _tissue(he: Image) -> float:
    """Share of pixels with more colour than glass has."""
    return float((np.ptp(cv2.blur(he, (9, 9)).astype(np.int16), axis=2) > 14).mean())


def own_pictures(folder: Path, mpp: float, stain: Callable[[Image], Image]) -> Iterator[Row]:
    """The middle of every picture of a folder and of those below it, at 0.5 um/px."""
    folders = [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]
    for path in (file for below in folders for file in image_files(below)):
        he = scaled(read_image(path), 1.0 if abs(mpp / MPP - 1) <= 0.1 else mpp / MPP)
        top, left = (max(0, (side - PICTURE_PX) // 2) for side in he.shape[:2])
        he = np.ascontiguousarray(he[top : top + PICTURE_PX, left : left + PICTURE_PX])
        yield Row(f"{path.parent.name}/{path.name}"[-60:], [he, stain(he)])


def sheet(rows: list[Row], columns: int) -> Image:
    """The rows on white, ``columns`` of them side by side, each under its caption."""
    strips = [_strip(row) for row in rows]
    lines = [_joined(strips[start : start + columns], axis=1) for start in range(0, len(strips), columns)]
    return _joined(lines, axis=0)


def _strip(row: Row) -> Image:
    images = _joined(row.images, axis=1)
    caption = np.full((CAPTION_PX, images.shape[1], 3), 255, np.uint8)
    place = (2, CAPTION_PX - 8)
    cv2.putText(caption, row.caption, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (60, 60, 60), 1, cv2.LINE_AA)
    return np.concatenate([caption, images])


def _joined(images: list[Image], axis: int) -> Image:
    """Images along an axis on white, a gap behind each."""
    other = 1 - axis
    longest = max(image.shape[other] for image in images)
    padded = []
    for image in images:
        padding = [(0, 0)] * 3
        padding[axis], padding[other] = (0, GAP_PX), (0, longest - image.shape[other])
        padded.append(np.pad(image, padding, constant_values=255))
    return np.concatenate(padded, axis=axis)


def main() -> None:
    """Draws or reads, stains, and writes the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parents[1] / "docs" / "her2_demo.jpg")
    parser.add_argument("--generator", default="her2-demo", help="a name, a bundle, or a run's folder")
    parser.add_argument("--he", type=Path, help="a folder of H&E pictures, instead of drawn tissue")
    parser.add_argument("--mpp", type=float, default=MPP, help="pixel size of those pictures, um/px")
    arguments = parser.parse_args()
    bundle = load_generator(find_bundle(arguments.generator))
    stainer, _ = whole_image_stainer(bundle, device="auto", precision="float32")

    def stain(image: Image) -> Image:
        return stain_whole(stainer, stainer.align_px, image)

    if arguments.he:
        rows, columns = list(own_pictures(arguments.he, arguments.mpp, stain)), 1
        if not rows:
            parser.error(f"{arguments.he}: no pictures")
    else:
        rows, columns = list(drawn_fields(stain)), FIELDS_A_SCORE
    picture = sheet(rows, columns)
    cv2.imwrite(str(arguments.output), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()
