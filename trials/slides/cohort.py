"""One batch over drawn, real and hostile slides: what became of each, in how long, and whether the summary is true.

    python -m trials.slides.cohort --shared DIR            DIR has slides/ and odd/; prints the table
    python -m trials.slides.cohort --shared DIR --write    also into docs/results/cohort.md

Every slide below DIR/slides, every file below DIR/odd whatever it is, and eight phantoms. Real slides of which the
files state no pixel size are given one, as for docs/results/real_slides.md. The generator is the default one.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pages import write_between
from benchmarks.runs import machine
from trials.slides.real_slides import name_of, slides_in
from wsi_ihc.config import GeneratorSettings
from wsi_ihc.output.ometiff import verify_ome_tiff

PAGE = Path(__file__).parents[2] / "docs" / "results" / "cohort.md"
PHANTOMS = {"0+": "1024x1024", "1+": "2048x1536", "2+": "3000x3000", "3+": "5000x4000"}
SHARES = {"dense": "1", "sparse": "0.1"}
STATED_NOWHERE = {
    "dicom_prostate": 4.0,
    "tiff_bracs": 0.25,
    "ihc_wsi": 0.25,
    "jpeg2000_tiles": 0.5,
    "dicom_camelyon": 0.5,
}
"""um/px, by the beginning of the path: see docs/results/real_slides.md for how true each is."""


@dataclass(frozen=True)
class Input:
    """One slide of the cohort."""

    path: Path
    name: str
    mpp: float | None = None

    @property
    def output(self) -> str:
        """Of its own, since files of many folders have one name."""
        return self.name.replace("/", "--") + "_ihc"


def inputs(shared: Path, phantoms: Path) -> Iterator[Input]:
    """Phantoms, then the real slides, then the hostile files."""
    for her2, size in PHANTOMS.items():
        for kind, share in SHARES.items():
            name = f"phantom_{size}_{kind}.tiff"
            options = ["--her2", her2.replace("0+", "0"), "--size", size, "--sparse", share, "--seed", "11", "--quiet"]
            command = [sys.executable, "-m", "wsi_ihc", "phantom", "-o", str(phantoms / name), *options]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            yield Input(phantoms / name, f"phantoms/{name}")
    for slide in slides_in(shared / "slides"):
        name = name_of(slide, shared / "slides")
        mpp = next((mpp for start, mpp in STATED_NOWHERE.items() if name.startswith(start)), None)
        yield Input(slide, f"slides/{name}", mpp)
    for file in sorted(path for path in (shared / "odd").rglob("*") if path.is_file()):
        yield Input(file, f"odd/{file.relative_to(shared / 'odd').as_posix()}")


def write_csv(path: Path, cohort: list[Input]) -> None:
    """The table for ``--csv``."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("slide", "mpp", "output"))
        writer.writerows((each.path, each.mpp or "", each.output) for each in cohort)


def run(table: Path, out: Path, generator: str, jobs: int) -> tuple[int, float]:
    """Exit status and wall seconds of ``wsi-ihc batch``."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "wsi_ihc", "batch", "--csv", str(table), "-o", str(out), "--quiet"]
    code = subprocess.run([*command, "--generator", generator, "--jobs", str(jobs)], check=False).returncode
    return code, time.perf_counter() - started


def check(cohort: list[Input], out: Path, code: int) -> list[dict[str, str]]:
    """The rows of ``summary.csv``, when they are true.

    Raises:
        AssertionError: saying what is not.
    """
    with (out / "summary.csv").open(encoding="utf-8", newline="") as stream:
        rows = {row["output"].removesuffix(".ome.tiff"): row for row in csv.DictReader(stream)}
    assert rows.keys() == {each.output for each in cohort}, "not every slide is in the summary"
    assert {row["state"] for row in rows.values()} <= {"done", "failed"}, "a slide was not attempted"
    assert (code == 0) == all(row["state"] == "done" for row in rows.values()), f"exit status {code} is not true"
    for row in rows.values():
        output = out / row["output"]
        if row["state"] == "done":
            assert verify_ome_tiff(output).ok, f"{output.name}: not sound"
        else:
            assert not output.exists(), f"{output.name}: failed and is there"
            assert row["reason"], f"{row['slide']}: failed without a line"
            assert "internal error" not in row["reason"], row["reason"]
    assert not [path for path in out.iterdir() if path.name.endswith((".part", ".lock"))], "something was left behind"
    return [rows[each.output] for each in cohort]


def as_page(cohort: list[Input], rows: list[dict[str, str]], runs: list[tuple[int, float]], words: str) -> str:
    """The two tables in Markdown."""
    states = Counter(row["state"] for row in rows)
    lines = [words, "", "| | slides | done | failed | wall time | exit status |", "|---|---|---|---|---|---|"]
    for name, (code, seconds) in zip(("the run", "the same command again"), runs, strict=True):
        minutes = f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
        lines.append(f"| {name} | {len(rows)} | {states['done']} | {states['failed']} | {minutes} | {code} |")
    lines += ["", "| slide | state | Mpx | s | what the line says |", "|---|---|---|---|---|"]
    for each, row in zip(cohort, rows, strict=True):
        reason = row["reason"].replace(f"{each.path}: ", "").replace(f"{each.path.parent}/", "").replace("|", "\\|")
        size = f"{float(row['megapixels']):.1f}" if row["megapixels"] else ""
        lines.append(f"| {each.name} | {row['state']} | {size} | {float(row['seconds']):.1f} | {reason} |")
    return "\n".join(lines)


def main() -> None:
    """Draws, runs, runs again, checks, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, metavar="DIR", help="the folder of slides/ and odd/")
    parser.add_argument("--generator", default=GeneratorSettings().name)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", action="store_true", help=f"put the tables into docs/results/{PAGE.name}")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        cohort = list(inputs(given.shared.resolve(), work))
        write_csv(work / "slides.csv", cohort)
        out = work / "out"
        first = run(work / "slides.csv", out, given.generator, given.jobs)
        rows = check(cohort, out, first[0])
        again = run(work / "slides.csv", out, given.generator, given.jobs)
        after = check(cohort, out, again[0])
        attempted = sum(row["attempts"] != earlier["attempts"] for row, earlier in zip(after, rows, strict=True))
    words = (
        f"Generator `{given.generator}`, {given.jobs} slides at a time, {machine()}. Every output passed `verify`; "
        f"`summary.csv` names every slide once, with its true state. The second run attempted {attempted} slides."
    )
    page = as_page(cohort, rows, [first, again], words)
    print(page)
    if given.write:
        write_between(PAGE, "cohort", page)


if __name__ == "__main__":
    main()
