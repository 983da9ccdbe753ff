"""From pairs to a stained cohort: trains a generator, judges it on the test split, and stains a folder with it.

    python pipelines/train_evaluate_convert.py configs/bci_variance.yaml --data BCI/ --slides slides/ -o work/

Each step is a command of wsi-ihc and is printed. When this is run again, steps are continued, or skipped when done:

    work/run/       the training, resumed when it was cut off
    work/report/    the evaluation; report.html is for people
    work/generator.safetensors
    work/stained/   the outputs, with index.html; exit status 11 says that something was left out of it
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from wsi_ihc.machine.child import PROGRAM


def main() -> int:
    """0 when every step has ended well; else the exit status of the step that did not."""
    parser = argparse.ArgumentParser(description="Train, evaluate, convert.")
    parser.add_argument("config", type=Path, help="a training configuration, for example configs/bci_variance.yaml")
    parser.add_argument("--data", type=Path, help="pairs; the split of the evaluation is test")
    parser.add_argument("--slides", type=Path, required=True, help="folder of H&E slides to stain")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of everything that is made")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    work: Path = given.output
    run, report, bundle = work / "run", work / "report", work / "generator.safetensors"
    data = ["--data", str(given.data)] if given.data else []
    device = ["--device", given.device]

    steps: list[list[str]] = []
    if not bundle.exists():
        resume = ["--resume"] if run.exists() else []
        steps.append(["train", str(given.config), *data, "-o", str(run), *resume, *device])
        steps.append(["weights", "export", str(run), "-o", str(bundle)])
    if given.data and not (report / "report.json").exists():
        steps.append(["evaluate", str(bundle), *data, "-o", str(report), *device])
    stained = ["-o", str(work / "stained"), "--generator", str(bundle), *device]
    steps.append(["batch", str(given.slides), "--recursive", *stained])

    for step in steps:
        print(f"$ wsi-ihc {shlex.join(step)}", flush=True)
        status = subprocess.run([*PROGRAM, *step], check=False).returncode
        if status:
            print(f"train_evaluate_convert: {step[0]} ended with {status}; the same command continues", file=sys.stderr)
            return status
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
