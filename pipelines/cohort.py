"""Converts a folder of slides from Python, then checks every output tile by tile.

    python pipelines/cohort.py slides/ -o stained/ --generator her2-demo --jobs 2

The same command continues a run that was cut off. It does what ``wsi-ihc batch`` does and checks the outputs too; a
pipeline of your own can start from it and do more with each output.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from wsi_ihc import ConversionSettings, WsiIhcError, load_settings, verify_ome_tiff
from wsi_ihc.batch import BatchOptions, Entry, Records, SlideRecord, gather, run_batch
from wsi_ihc.batch.preflight import check_folder, check_owners, check_space
from wsi_ihc.machine.text import printable


class Lines:
    """One line for each slide that starts or ends."""

    def begin(self, total: int) -> None:
        print(f"{total} slides")

    def started(self, entry: Entry, why: str) -> None:
        print(printable(f"{entry.slide.name}: starts {why}".rstrip()))

    def said(self, entry: Entry, line: str) -> None: ...

    def ended(self, entry: Entry, record: SlideRecord, *, news: bool) -> None:
        print(printable(f"{entry.slide.name}: {record.state} {record.reason}".rstrip()))

    def note(self, text: str) -> None:
        print(printable(text))


def main() -> int:
    """0 when every slide is done and sound, and nothing was left out."""
    parser = argparse.ArgumentParser(description="Stain a cohort and check every output.")
    parser.add_argument("slides", nargs="+", type=Path)
    parser.add_argument("-o", "--output", required=True, type=Path)
    parser.add_argument("--generator", default="recolour")
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--gpus", default="", help="0,1: one slide at a time on each")
    given = parser.parse_args()
    settings = load_settings(ConversionSettings, None, {"generator.name": given.generator})
    options = BatchOptions(jobs=given.jobs, gpus=tuple(filter(None, given.gpus.split(","))))
    try:
        ours = Records(given.output).outputs()
        cohort = gather(given.slides, settings, recursive=True, folder=given.output, leave_out=ours)
        entries = cohort.entries
        check_folder(given.output)
        check_owners(entries, given.output)
        check_space(entries, given.output, options.at_once)
        results = run_batch(entries, given.output, options, Lines())
    except WsiIhcError as error:
        print(printable(f"cohort: {error}"))
        return error.exit_code
    for each in cohort.left_out:
        print(printable(f"left out: {each}"))
    sound = 0
    for record in results.values():
        if record.state == "done":
            report = verify_ome_tiff(given.output / record.output)
            sound += report.ok
            print(printable(f"{record.output}: {'sound' if report.ok else 'NOT SOUND'}"))
    print(f"{sound} of {len(results)} slides done and sound")
    return 0 if sound == len(results) and not cohort.left_out else 1


if __name__ == "__main__":
    raise SystemExit(main())
