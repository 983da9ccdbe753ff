"""Peak memory of a conversion against the size of the slide: it must stay flat.

    python benchmarks/memory.py WORKFOLDER [--write]

Rows of slides: all tissue, and mostly glass up to 8 Gpx at two pixel sizes. ``--write`` puts table and plot into docs/.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from pages import write_between
from runs import convert, machine, repeated_slide

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
PLOT = PAGE.with_name("memory.svg")


@dataclass(frozen=True)
class Kind:
    """What the slides of a row have in common."""

    share: float
    """Of tissue."""
    mpp: float
    """um/px: the finer, the smaller the tissue mask of so many pixels."""

    def __str__(self) -> str:
        return f"{'all' if self.share == 1 else f'{self.share:.0%}'} tissue, {self.mpp} um/px"


SPARSE = (8_000, 30_000, 60_000, 90_000)
ROWS = {Kind(1.0, 0.25): (4_000, 16_000, 40_000), Kind(0.1, 0.25): SPARSE, Kind(0.1, 0.5): SPARSE}
"""Sides in pixels."""


@dataclass(frozen=True)
class Found:
    """Of one conversion."""

    gigapixels: float
    blocks: int
    seconds: float
    peak_mb: float


def main() -> None:
    """Prints the page's section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", action="store_true", help=f"put the section into docs/{PAGE.name}")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    found = {kind: [measure(given.folder, side, kind) for side in sides] for kind, sides in ROWS.items()}
    section = report(found)
    print(section)
    if given.write:
        draw(found, PLOT)
        write_between(PAGE, "memory", section)


def measure(folder: Path, side: int, kind: Kind) -> Found:
    """Converts a slide of that side with ``identity``; its tissue is found, unless it is all tissue."""
    source = repeated_slide(folder, side, kind.share, kind.mpp)
    tissue = () if kind.share < 1 else ("--tissue", "none")
    seconds, account = convert(source, folder / "memory.ome.tiff", "--generator", "identity", *tissue)
    period = 4096
    gigapixels = (-(-side // period) * period) ** 2 / 1e9
    result = Found(gigapixels, account["blocks"], seconds, account["peak_memory_mb"])
    print(f"{source.name}: {result}", file=sys.stderr)
    return result


def report(found: dict[Kind, list[Found]]) -> str:
    """Markdown."""
    lines = [
        f"{machine()}; identity.",
        "",
        "| slide | Gpx | blocks with tissue | seconds | peak MB | of the smallest |",
    ]
    lines.append("|---|---|---|---|---|---|")
    for kind, row in found.items():
        lines += [
            f"| {kind} | {each.gigapixels:.2g} | {each.blocks:,} | {each.seconds:.1f} | {each.peak_mb:.0f} | "
            f"{each.peak_mb / row[0].peak_mb:.2f} |"
            for each in row
        ]
    return "\n".join(lines)


def draw(found: dict[Kind, list[Found]], path: Path) -> None:
    """Peak memory over the size of the slide."""
    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3), layout="constrained")
    for kind, row in found.items():
        sizes, peaks = [each.gigapixels for each in row], [each.peak_mb for each in row]
        axes.plot(sizes, peaks, "o-", label=str(kind))
    highest = max(each.peak_mb for row in found.values() for each in row)
    axes.set(xscale="log", xlabel="slide, Gpx", ylabel="peak memory, MB", ylim=(0, 1.1 * highest))
    axes.legend(loc="lower right")
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
