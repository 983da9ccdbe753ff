"""A folder of slides overnight, in Python: stain all of them, then check every output tile by tile.

    python pipelines/cohort.py slides/ -o stained/ --generator her2-demo --jobs 2

The same command continues a run that was cut off. What ``wsi-ihc batch`` does, plus the check; a starting point for
a pipeline of your own, which would do more with each output here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from wsi_ihc import ConversionSettings, WsiIhcError, load_settings, verify_ome_tiff
from wsi_ihc.batch import BatchOptions, Entry, Records, SlideRecord, gather, run_batch
from wsi_ihc.batch.preflight import check_folder, check_owners, check_space


class Told:
    """One line for each slide that begins or ends."""

    def begin(self, total: int) -> None:
        print(f"{total} slides")

    def started(self, entry: Entry, why: str) -> None:
        print(f"{entry.slide.name}: begins {why}".rstrip())

    def said(self, entry: Entry, line: str) -> None: ...

    def ended(self, entry: Entry, record: SlideRecord, *, news: bool) -> None:
        print(f"{entry.slide.name}: {record.state} {record.reason}".rstrip())

    def note(self, text: str) -> None:
        print(text)


def main() -> int:
    """0 when every slide is done and sound."""
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
        entries = gather(given.slides, settings, recursive=True, leave_out=Records(given.output).outputs())
        check_folder(given.output)
        check_owners(entries, given.output)
        check_space(entries, given.output, options.at_once)
        results = run_batch(entries, given.output, options, Told())
    except WsiIhcError as error:
        print(f"cohort: {error}")
        return error.exit_code
    sound = 0
    for record in results.values():
        if record.state == "done":
            report = verify_ome_tiff(given.output / record.output)
            sound += report.ok
            print(f"{record.output}: {'sound' if report.ok else 'NOT SOUND'}")
    print(f"{sound} of {len(results)} slides done and sound")
    return 0 if sound == len(results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
