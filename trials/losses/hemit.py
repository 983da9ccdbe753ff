"""The paper's comparison on real pixels: four losses on HEMIT's pairs, aligned and moved, judged on its test pairs.

    python scripts/hemit_ihc.py HEMIT/ pairs/
    python -m trials.losses.hemit pairs/ -o results/hemit-losses        24 trainings, about 14 hours on two quiet cores

Stop and start it as you like: a training that was judged is left alone, one that was interrupted goes on from its last
checkpoint. ``table.md`` is written again after each training. Moved pairs imitate consecutive sections: the IHC of each
pair lies 10 to 30 px away, in a direction that follows from its name. Test pairs are aligned always.
"""

from __future__ import annotations

import os

# Read when torch is first imported: threads that sleep at the end of a loop are kinder to a shared machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from trials.judging.hemit import Painter, best_threshold, figures, judge_pairs, pooled
from wsi_ihc.pairs.folders import find_pairs, read_pair

_CONFIG = Path(__file__).resolve().parents[2] / "configs" / "hemit_losses.yaml"

LOSSES: Mapping[str, Mapping[str, str]] = {
    "pix2pix": {"l1_weight": "100", "octave_weights": "[]"},
    "pyramid": {},
    "variance, as published": {"variance_weight": "30"},
    "variance, pooled": {"variance_weight": "30", "variance_pool_px": "32"},
}
"""What each system changes in ``configs/hemit_losses.yaml``."""

DATA = ("aligned", "moved")
SHIFT_PX = (10, 30)
"""Shortest and longest distance between the two sides of a moved pair."""
CUT_PX = 32
"""What moved pairs lose of each side, so that both sides stay inside the field."""

Image = NDArray[np.uint8]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, help="folder that scripts/hemit_ihc.py made")
    parser.add_argument("-o", "--output", type=Path, required=True, help="where trainings and table.md go")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--steps", type=int, default=1600, help="of one training; the last three eighths at a falling rate"
    )
    parser.add_argument("--every", type=int, default=1, help="judge every so many test pairs only")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    folders = {"aligned": arguments.pairs, "moved": moved_pairs(arguments.pairs, arguments.output / "moved")}
    for loss, data, seed in trainings(arguments.seeds):
        run = arguments.output / f"{loss.replace(', ', '-').replace(' ', '-')}-{data}-{seed}"
        result = run.with_suffix(".json")
        if not result.is_file():
            train(run, folders[data], LOSSES[loss], arguments.steps, seed)
            found = {key: asdict(estimate) for key, estimate in judged(run, arguments.pairs, arguments.every).items()}
            result.write_text(json.dumps({"loss": loss, "data": data, "seed": seed, "figures": found}, indent=1))
        (arguments.output / "table.md").write_text(table(sorted(arguments.output.glob("*.json"))), encoding="utf-8")


def trainings(seeds: int) -> Iterator[tuple[str, str, int]]:
    """One seed of everything first, so that a table of all systems is there early."""
    for seed in range(seeds):
        for data in DATA:
            for loss in LOSSES:
                yield loss, data, seed


def train(run: Path, data: Path, losses: Mapping[str, str], steps: int, seed: int) -> None:
    """One training by the command line, or the rest of one that was interrupted."""
    decay = 3 * steps // 8
    changes = {f"losses.{key}": value for key, value in losses.items()} | {
        "run.seed": str(seed),
        "run.validate_every": str(steps),
        "schedule.constant": str(steps - decay),
        "schedule.decay": str(decay),
    }
    assignments = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
    resume = ["--resume"] if (run / "run.json").is_file() else []
    command = [sys.executable, "-m", "wsi_ihc", "train", str(_CONFIG), "--data", str(data), "-o", str(run)]
    subprocess.run([*command, *assignments, *resume], check=True)


def judged(run: Path, pairs: Path, every: int) -> Mapping[str, object]:
    """The figures of a training's generator on the cleaned truth."""
    painter = Painter.of(str(run))
    threshold = best_threshold(pooled(one for one, _ in judge_pairs(pairs, "val", painter, every)))
    return figures([one for one, _ in judge_pairs(pairs, "test", painter, every)], threshold)


def moved_pairs(pairs: Path, to: Path) -> Path:
    """The pairs that train and validate, one side moved against the other, as a folder of the same layout."""
    for split in ("train", "val"):
        for pair in find_pairs(pairs, split):
            files = [to / side / split / f"{pair.name}.png" for side in ("HE", "IHC")]
            if not all(file.is_file() for file in files):
                for file, image in zip(files, moved(*read_pair(pair), pair.name), strict=True):
                    file.parent.mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(file), image[..., ::-1])
    return to


def moved(he: Image, ihc: Image, name: str) -> tuple[Image, Image]:
    """Both sides smaller by ``CUT_PX``, the IHC from ``SHIFT_PX`` away; the same name gives the same shift."""
    random = np.random.default_rng(list(hashlib.blake2b(name.encode(), digest_size=8).digest()))
    distance, angle = random.uniform(*SHIFT_PX), random.uniform(0, 2 * np.pi)
    down, right = round(distance * np.sin(angle)), round(distance * np.cos(angle))
    height, width = he.shape[0] - CUT_PX, he.shape[1] - CUT_PX
    top, left = max(0, -down), max(0, -right)
    ours = he[top : top + height, left : left + width]
    theirs = ihc[top + down : top + down + height, left + right : left + right + width]
    return ours, theirs


def table(results: Sequence[Path]) -> str:
    """A row for each system on each data, with the mean over seeds and, in brackets, each seed's value."""
    found: dict[tuple[str, str], list[Mapping[str, Mapping[str, float]]]] = {}
    for result in results:
        entry = json.loads(result.read_text())
        found.setdefault((entry["data"], entry["loss"]), []).append(entry["figures"])
    if not found:
        return ""
    keys = list(next(iter(found.values()))[0])
    lines = ["| data | losses | " + " | ".join(keys) + " |", "|---|---|" + "---|" * len(keys)]
    for data in DATA:
        for loss in LOSSES:
            if runs := found.get((data, loss)):
                lines.append(
                    f"| {data} | {loss} | "
                    + " | ".join(_cell([run[key]["value"] for run in runs]) for key in keys)
                    + " |"
                )
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ({', '.join(f'{value:.3f}' for value in values)})"


if __name__ == "__main__":
    main()
