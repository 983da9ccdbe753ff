"""Disturbs conversions in every way that a night in a laboratory has, and compares what comes out byte for byte.

    python -m trials.faults WORK                     100 kills and every single fault; prints the table
    python -m trials.faults WORK --write             also into docs/results/faults.md
    python -m trials.faults WORK --kills 20 --only "kill" --seed 7

What was found is kept in WORK: trials that are done again replace their lines, and the others stay.

Some twenty minutes on two cores. Linux; a full disk is a small tmpfs for root, else a limit on the size of a file.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks.pages import write_between
from benchmarks.runs import draw_slide, machine
from trials.faults.every import TRIALS
from trials.faults.kills import Ground, Row, kill_conversions, kill_schedulers, kill_workers
from trials.faults.processes import convert

PAGE = Path(__file__).parents[2] / "docs" / "results" / "faults.md"
SIDE_PX = 5000


def prepare(folder: Path, seed: int) -> Ground:
    """The slide and the bytes that every trial must end with."""
    folder.mkdir(parents=True, exist_ok=True)
    # Threads of the generator have nothing to do here; forks and starts are what these trials are made of.
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    slide = draw_slide(folder, SIDE_PX)
    truth = folder / "undisturbed.ome.tiff"
    truth.unlink(missing_ok=True)
    convert(slide, truth)
    truth.unlink()
    ended = convert(slide, truth)
    assert ended.code == 0, ended.said
    return Ground(folder, slide, truth.read_bytes(), ended.seconds, random.Random(seed))


def trials(kills: int) -> dict[str, Callable[[Ground], Row]]:
    """Half of the kills meet the conversion, the others the cluster."""
    at_workers, at_schedulers = round(kills * 0.3), round(kills * 0.2)
    return {
        "kill conversion": partial(kill_conversions, kills=kills - at_workers - at_schedulers),
        "kill worker": partial(kill_workers, kills=at_workers),
        "kill scheduler": partial(kill_schedulers, kills=at_schedulers),
        **TRIALS,
    }


def as_table(rows: list[Row]) -> str:
    """Markdown."""
    lines = ["| what was done | times | what happened | same bytes |", "|---|---|---|---|"]
    for row in rows:
        lines.append(f"| {row.fault} | {row.times} | {row.happened} | {'yes' if row.same else '**NO**'} |")
    return "\n".join(lines)


def main() -> int:
    """0 when everything ended as it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="a folder for slides and outputs")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="trials whose name begins so")
    parser.add_argument("--write", action="store_true", help=f"put the table into docs/{PAGE.name}")
    given = parser.parse_args()
    ground = prepare(given.work.resolve(), given.seed)
    print(f"undisturbed: {ground.seconds:.1f} s", file=sys.stderr)
    known = given.work / "rows.json"
    found = {name: Row(**row) for name, row in json.loads(known.read_text()).items()} if known.exists() else {}
    for name, trial in trials(given.kills).items():
        if name.startswith(given.only):
            found[name] = trial(ground)
            known.write_text(json.dumps({name: asdict(row) for name, row in found.items()}, indent=1))
            print(as_table([found[name]]).splitlines()[-1], flush=True)
    rows = [found[name] for name in trials(given.kills) if name in found]
    if given.write:
        write_between(PAGE, "faults", f"{machine()}. Seed {given.seed}.\n\n{as_table(rows)}")
    for left in ground.folder.glob("*.blocks.zarr"):
        shutil.rmtree(left, ignore_errors=True)
    return 0 if all(row.same for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
