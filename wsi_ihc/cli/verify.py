"""``wsi-ihc verify``: checks whether an output is complete and sound."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsi_ihc.cli.terminal import say
from wsi_ihc.errors import OutputError
from wsi_ihc.machine.text import json_text

if TYPE_CHECKING:
    from wsi_ihc.output.verification_report import VerificationReport


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE…")
@click.option("--quick", is_flag=True, help="Decode only a sample of the tiles.")
@click.option("--json", "as_json", is_flag=True, help="Print the reports as JSON.")
def verify(files: tuple[Path, ...], quick: bool, as_json: bool) -> None:
    """Check that outputs are complete: levels, tiles, pixels, scale, provenance.

    Each check is listed, with the problems that it found. Other OME-TIFFs can be checked too; the report says which
    marks of wsi-ihc they lack. Exit code 6 when something is wrong.
    """
    from wsi_ihc.output.ometiff import verify_ome_tiff
    from wsi_ihc.output.ometiff.figures import figures, stated_notices

    reports = []
    for file in files:
        reports.append(report := verify_ome_tiff(file, quick=quick))
        if not as_json:
            _show(report, figures(file) if report.ok else {}, stated_notices(file) if report.ok else ())
    if as_json:
        found = [report.as_dict() | (_facts(report.path) if report.ok else {}) for report in reports]
        click.echo(json_text(found))
    bad = [report for report in reports if not report.ok]
    if bad:
        others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise OutputError(f"{bad[0].path}: {bad[0].problems[0]}{others}")


def _facts(file: Path) -> dict[str, Any]:
    from wsi_ihc.output.ometiff.figures import figures, stated_notices

    return {"figures": figures(file), "notices": list(stated_notices(file))}


def _show(report: VerificationReport, seen: dict[str, str], notices: tuple[str, ...]) -> None:
    """Prints each check with its figure, or with its problems; then what the file says that a user should know."""
    state = f"sound, {seen['size']}" if seen else "sound" if report.ok else "NOT sound"
    say(f"{report.path}: {state}")
    for check in report.checks:
        say(f"  {'ok ' if check.ok else 'BAD'} {check.name:<24}{seen.get(check.name, '')}".rstrip())
        for problem in check.problems:
            say(f"      {problem}")
    for notice in notices:
        say(f"  note: {notice}")
