"""wsi-ihc verify: is an output complete and sound?"""

from __future__ import annotations

import json
from pathlib import Path

import click

from wsi_ihc.errors import OutputError


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE…")
@click.option("--quick", is_flag=True, help="Decode a sample of the tiles instead of all.")
@click.option("--json", "as_json", is_flag=True, help="Print the reports as JSON.")
def verify(files: tuple[Path, ...], quick: bool, as_json: bool) -> None:
    """Check outputs: levels, scale, tiles, provenance.

    Every check is named with what is wrong. A foreign OME-TIFF is told which of our marks it lacks.

    Exits with 6 when something is wrong.
    """
    from wsi_ihc.output.ometiff import verify_ome_tiff

    reports = [verify_ome_tiff(file, quick=quick) for file in files]
    if as_json:
        click.echo(json.dumps([report.as_dict() for report in reports], indent=2))
    else:
        for report in reports:
            click.echo(f"{report.path}: {'sound' if report.ok else 'NOT sound'}")
            for check in report.checks:
                click.echo(f"  {'ok ' if check.ok else 'BAD'} {check.name}")
                for problem in check.problems:
                    click.echo(f"      {problem}")
    bad = [report for report in reports if not report.ok]
    if bad:
        others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise OutputError(f"{bad[0].path}: {bad[0].problems[0]}{others}")
