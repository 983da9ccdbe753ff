"""Make training pairs of H&E and brightfield pan-cytokeratin IHC from HEMIT.

    python scripts/hemit_ihc.py HEMIT OUT

HEMIT holds ``HE/{train,test}`` and ``mIHC/{train,test}``, with files named REGION_NUMBER.png. OUT gets
``HE/{train,val,test}`` and ``IHC/{train,val,test}`` at 0.5 um/px, as ``wsi-ihc train`` and ``evaluate`` read them.
Beside them lie ``uncleaned`` (the test fields without any rule, DAB of 1.3 where the multiplex image is saturated),
``epithelium/{val,test}`` (masks) and ``fields.csv`` (what was done with each field).

Regions are never split: those that validate are taken from the training split by a hash of their name. A test field
is never left out; ``fields.csv`` says which of them are doubtful. The rules are in ``wsi_ihc/training/hemit.py``.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from wsi_ihc.pairs.folders import Pair, find_pairs, read_pair
from wsi_ihc.training.hemit import Field, clean, paint, read_channels, region_levels, shrink

_USED = ("good", "flat")
"""Verdicts of the fields that are learnt from; flat ones show no brown."""


@click.command()
@click.argument("hemit", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--validation-regions", default=6, show_default=True, help="Regions of the training split that validate.")
def main(hemit: Path, out: Path, validation_regions: int) -> None:
    """Make training pairs of H&E and brightfield pan-cytokeratin IHC from HEMIT."""
    regions: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in find_pairs(hemit):
        regions[pair.split or "train", pair.name.rpartition("_")[0]].append(pair)
    training = sorted((name for split, name in regions if split == "train"), key=_hash)
    validating = set(training[:validation_regions])
    cv2.setNumThreads(1)
    with ThreadPoolExecutor() as pool:
        jobs = [
            pool.submit(_make_region, pairs, out, "val" if name in validating and split == "train" else split)
            for (split, name), pairs in sorted(regions.items())
        ]
        rows = [row for job in jobs for row in job.result()]
    with (out / "fields.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    for split in ("train", "val", "test"):
        counts = Counter(row["verdict"] for row in rows if row["split"] == split)
        click.echo(f"{split}: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))


def _make_region(pairs: list[Pair], out: Path, split: str) -> list[dict[str, Any]]:
    """Write the fields of one region; gives back their rows of the table."""
    fields = {pair.name: read_channels(*read_pair(pair)) for pair in pairs}
    threshold, level = region_levels(fields.values())
    return [_make_field(name, field, threshold, level, out, split) for name, field in fields.items()]


def _make_field(name: str, field: Field, threshold: float, level: float, out: Path, split: str) -> dict[str, Any]:
    cleaned = clean(field, threshold, level)
    used = split == "test" or cleaned.verdict in _USED
    if used:
        _write(out / "HE" / split / f"{name}.png", shrink(field.he))
        _write(out / "IHC" / split / f"{name}.png", paint(field.he, cleaned.signal))
    if split == "test":
        _write(out / "uncleaned" / f"{name}.png", paint(field.he, 2 * field.panck / 255))
    if split != "train":
        _write(out / "epithelium" / split / f"{name}.png", 255 * (shrink(cleaned.epithelium.astype(np.float32)) > 0.5))
    return {
        "field": name,
        "region": name.rpartition("_")[0],
        "split": split,
        "verdict": cleaned.verdict,
        "used": used,
        "epithelium": round(float(cleaned.epithelium.mean()), 4),
        "region_level": round(level, 1),
    }


def _write(path: Path, image: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image.astype(np.uint8)[..., ::-1] if image.ndim == 3 else image.astype(np.uint8))


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode()).digest()


if __name__ == "__main__":
    main()
