"""The path without a generator against libvips, an OpenSlide loop and TIAToolbox's reader, in turn, in one run.

    python benchmarks/rivals.py WORKFOLDER [--side 30000] [--repeats 3] [--with PYTHON…] [--write]

Nothing of the project needs the others. ``--with`` names interpreters that have them, for example of an environment
with pyvips and pyvips-binary; a rival that none of them has is left out and named.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from pages import write_between
from rival_ways import ABSENT, WAYS
from runs import convert, machine, median, repeated_slide

from wsi_ihc import open_slide

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
SCRIPT = Path(__file__).with_name("rival_ways.py")


def main() -> None:
    """Prints the page's section; ``--write`` puts it into docs/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=30_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--with", dest="pythons", nargs="*", default=[], metavar="PYTHON")
    parser.add_argument("--write", action="store_true", help=f"put the section into docs/{PAGE.name}")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    source = repeated_slide(given.folder, given.side)
    slide = open_slide(source)
    megapixels = slide.levels[0].size.height * slide.levels[0].size.width / 1e6
    slide.close()

    # The first look at the file comes from the disk; whoever runs first shall not pay for that.
    source.read_bytes()
    homes = find_homes([sys.executable, *given.pythons], source.with_name("absent"))
    seconds: dict[str, list[float]] = {"wsi-ihc": [], **{name: [] for name in homes}}
    versions: dict[str, str] = {"wsi-ihc": "wsi-ihc"}
    for _ in range(given.repeats):
        taken, account = convert(source, given.folder / "ours.ome.tiff", "--generator", "identity", "--tissue", "none")
        seconds["wsi-ihc"].append(taken)
        for name, python in homes.items():
            taken, versions[name] = run_rival(name, python, source, given.folder / f"{name}.tiff")
            seconds[name].append(taken)
        print({name: round(values[-1], 1) for name, values in seconds.items()}, account["seconds"], file=sys.stderr)
    section = report(seconds, versions, megapixels, [name for name in WAYS if name not in homes])
    print(section)
    if given.write:
        write_between(PAGE, "rivals", section)


def find_homes(pythons: list[str], nothing: Path) -> dict[str, str]:
    """Rivals by name, and the first interpreter that has them: they fail otherwise when the slide is absent."""
    return {
        name: python
        for name in WAYS
        for python in reversed(pythons)
        if subprocess.run([python, SCRIPT, name, nothing, nothing], capture_output=True).returncode != ABSENT
    }


def run_rival(name: str, python: str, source: Path, target: Path) -> tuple[float, str]:
    """Seconds of the whole process, and its library's name and version."""
    started = time.perf_counter()
    done = subprocess.run([python, SCRIPT, name, source, target], check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    target.unlink()
    return seconds, done.stdout.splitlines()[-1]


def report(seconds: dict[str, list[float]], versions: dict[str, str], megapixels: float, absent: list[str]) -> str:
    """Markdown: medians, and the median of the ratios within each round."""
    ours = seconds["wsi-ihc"]
    rounds = len(ours)
    lines = [f"{machine()}; {megapixels:,.0f} Mpx, {rounds} rounds in turn, medians, process start to end.", ""]
    lines += ["| | seconds | Mpx/s | wsi-ihc is faster by |", "|---|---|---|---|"]
    for name, values in seconds.items():
        ratio = median([other / own for other, own in zip(values, ours, strict=True)])
        rate = median([megapixels / value for value in values])
        lines.append(f"| {versions[name]} | {median(values):.1f} | {rate:.0f} | {ratio:.2f} |")
    if absent:
        lines += ["", f"Not installed, left out: {', '.join(absent)}."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
