"""Peak memory of a conversion against the size of the slide: it must stay flat.

python benchmarks/memory.py WORKFOLDER [--sides 4000 16000 40000]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from runs import convert, machine, repeated_slide


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sides", type=int, nargs="+", default=[4000, 16000, 40000])
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print(f"{machine()}; phantoms that are all tissue, identity\n")
    print("| side, px | Mpx of blocks | seconds | peak MB | of the smallest |\n|---|---|---|---|---|")
    first = None
    for side in arguments.sides:
        source = repeated_slide(arguments.folder, side)
        output = arguments.folder / "memory.ome.tiff"
        seconds, account = convert(source, output, "--generator", "identity")
        peak = account["peak_memory_mb"]
        first = first or peak
        print(
            f"| {side:,} | {account['megapixels']:.0f} | {seconds:.1f} | {peak:.0f} | {peak / first:.2f} |", flush=True
        )


if __name__ == "__main__":
    main()
