"""Converts every slide of a folder and prints what became of each, as the tables of docs/results/real_slides.md.

    python -m trials.slides.real_slides FOLDER --mpp dicom_prostate=4 --keep OUTPUTS

A slide without a pixel size is given one: that of ``--mpp`` whose NAME its path begins with, else 0.5 um/px. The column
of Bio-Formats needs Java and the jar that ``pytest -m java`` leaves in the cache.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

from wsi_ihc.config import ConversionSettings, GeneratorSettings, SlideSettings
from wsi_ihc.convert import ConversionReport, convert_slide
from wsi_ihc.errors import ResolutionError, WsiIhcError
from wsi_ihc.slides import open_slide
from wsi_ihc.slides.dicom_series import is_dicom, series_files

JAR = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "wsi-ihc-tests" / "bioformats_package.jar"
PROBE = Path(__file__).parents[2] / "tests" / "java" / "ReadLevels.java"
ASSUMED_MPP = 0.5
HEADS = ["slide", "reader", "working plane", "tissue", "s", "MB", "Bio-Formats sees", "notices"]


def slides_in(folder: Path) -> Iterator[Path]:
    """Every file; of the files of a DICOM series the first."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if not is_dicom(path) or path == series_files(path)[0]:
            yield path


def name_of(slide: Path, folder: Path) -> str:
    """Its path in ``folder``; a series of many files goes by their folder's name."""
    many = is_dicom(slide) and len(series_files(slide)) > 1
    return (slide.parent if many else slide).relative_to(folder).as_posix()


def convert(
    slide: Path, output: Path, generator: str, mpp: float, *, assume_anyway: bool
) -> tuple[ConversionReport, bool]:
    """The report, and whether ``mpp`` had to be assumed: the file states none, or ``assume_anyway``.

    Raises:
        WsiIhcError: refused.
    """
    chosen = GeneratorSettings(name=generator)
    try:
        return convert_slide(slide, output, ConversionSettings(generator=chosen), overwrite=True), False
    except ResolutionError:
        with closing(open_slide(slide)) as opened:
            if opened.mpp is not None and not assume_anyway:
                raise
        given = ConversionSettings(generator=chosen, slide=SlideSettings(mpp=mpp))
        return convert_slide(slide, output, given, overwrite=True), True


def seen_by_bioformats(output: Path) -> str | None:
    """Series, levels, RGB, pixel size and magnification as QuPath gets them; None without Java or the jar."""
    if not JAR.exists() or shutil.which("java") is None:
        return None
    command = ["java", "-cp", str(JAR), str(PROBE), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seen = dict(re.findall(r"(\w+)=(\S+)", done.stdout))
    if not seen:
        return f"fails: {done.stderr.strip().splitlines()[0]}"
    x, y = (f"{float(value):.4g}" for value in seen["mpp"].split(","))
    objective = "no objective" if seen["objective"] == "null" else f"{float(seen['objective']):g}x"
    colour = "RGB" if seen["rgb"] == "true" else "not RGB"
    size = x if x == y else f"{x} x {y}"
    return f"{seen['series']} series, {seen['levels']} levels, {colour}, {size} um/px, {objective}"


def row(name: str, report: ConversionReport, assumed: bool) -> list[str]:
    """The cells of one slide, in the order of ``HEADS``."""
    plane, made = report.plan.size, report.provenance
    seconds = report.run.total_s
    return [
        name,
        made.reader,
        f"{plane.width} x {plane.height} at {made.mpp:.4g} um/px{' (assumed)' if assumed else ''}",
        f"{made.tissue_fraction:.1%}",
        f"{seconds:.1f}",
        f"{report.output.stat().st_size / 1e6:.2f}",
        seen_by_bioformats(report.output) or "",
        "; ".join(str(notice) for notice in report.run.notices),
    ]


def run(folder: Path, outputs: Path, generator: str, given: Mapping[str, float]) -> None:
    """Prints the table of what was converted, then the refusals."""
    refused: list[tuple[str, str]] = []
    show(HEADS)
    show(["---"] * len(HEADS))
    for slide in slides_in(folder):
        name = name_of(slide, folder)
        chosen = next((mpp for start, mpp in given.items() if name.startswith(start)), None)
        output = outputs / f"{name.replace('/', '--')}.ome.tiff"
        try:
            mpp = ASSUMED_MPP if chosen is None else chosen
            report, assumed = convert(slide, output, generator, mpp, assume_anyway=chosen is not None)
        except WsiIhcError as error:
            refused.append((name, str(error).removeprefix(f"{slide}: ").replace(f"{folder}/", "")))
            continue
        show(row(name, report, assumed))
    print()
    show(["slide", "refused with"])
    show(["---", "---"])
    for name, words in refused:
        show([name, words])


def show(cells: list[str]) -> None:
    """A row of Markdown."""
    print("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |", flush=True)


def main() -> None:
    """Command line: FOLDER [--generator NAME] [--mpp NAME=UM]... [--keep FOLDER]."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--generator", default=GeneratorSettings().name)
    parser.add_argument("--mpp", action="append", default=[], metavar="NAME=UM")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where the outputs stay; by default nowhere")
    arguments = parser.parse_args()
    given = {name: float(mpp) for name, _, mpp in (text.rpartition("=") for text in arguments.mpp)}
    with tempfile.TemporaryDirectory() as temporary:
        outputs = arguments.keep or Path(temporary)
        outputs.mkdir(parents=True, exist_ok=True)
        run(arguments.folder, outputs, arguments.generator, given)


if __name__ == "__main__":
    main()
