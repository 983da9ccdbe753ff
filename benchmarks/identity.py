"""The path without a generator: read, crop, encode, store, write, verify. Mpx/s end to end, process start included.

python benchmarks/identity.py WORKFOLDER [--side 30000] [--repeats 3] [--slide FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from runs import convert, machine, median, repeated_slide

from wsi_ihc import open_slide


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=30000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--slide", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    source = arguments.slide or repeated_slide(arguments.folder, arguments.side)
    slide = open_slide(source)
    megapixels = slide.levels[0].size.height * slide.levels[0].size.width / 1e6
    slide.close()
    rates, stages = [], []
    for repeat in range(arguments.repeats):
        options = ("--generator", "identity", "--tissue", "none")
        seconds, account = convert(source, arguments.folder / "identity.ome.tiff", *options)
        rates.append(megapixels / seconds)
        stages.append(account["seconds"])
        print(f"{repeat}: {seconds:.1f} s, {rates[-1]:.0f} Mpx/s", flush=True)
    print(f"\n{machine()}; {source.name}, {megapixels:.0f} Mpx, {arguments.repeats} repeats, medians\n")
    print("| stage | seconds |\n|---|---|")
    for name in stages[0]:
        print(f"| {name} | {median([stage[name] for stage in stages]):.1f} |")
    print(f"\nend to end {median(rates):.0f} Mpx/s")


if __name__ == "__main__":
    main()
