"""The last steps of an output: it is checked under a temporary name, and only then gets its own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from wsi_ihc.errors import OutputError
from wsi_ihc.machine.atomic import give_name
from wsi_ihc.output.formats import OutputFormat


def check_output(form: OutputFormat, part: Path, layers: Iterable[str]) -> None:
    """Verifies every file of the complete output ``part``, a sample of its tiles.

    Raises:
        OutputError: verification found a problem; ``part`` stays for a look.
    """
    for file in form.files(part, layers):
        report = form.verify(file, quick=True, with_sidecar=False)
        if not report.ok:
            raise OutputError(f"{file}: failed its verification: {report.problems[0]}; run the same command again")


def name_output(form: OutputFormat, part: Path, output: Path, layers: Iterable[str]) -> None:
    """Gives the checked files of ``part`` their names, ``output`` last; an older output is replaced.

    Raises:
        StorageError: the disk refuses.
    """
    names = list(layers)
    for file, name in zip(form.files(part, names), form.files(output, names), strict=True):
        give_name(file, name, replace_folder=form.is_folder)
