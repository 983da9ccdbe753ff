"""Which slides make a cohort, what was left out of it, and what each output is called."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wsi_ihc.batch.search import LeftOut, Search, is_dicom_folder, without_repeats
from wsi_ihc.batch.table import WrongRowError, read_rows, row_name, row_settings, row_slide, wrong_row
from wsi_ihc.config import ConversionSettings
from wsi_ihc.errors import SettingsError
from wsi_ihc.machine.text import printable
from wsi_ihc.output.names import longest_stem, output_stem

__all__ = ["Cohort", "Entry", "LeftOut", "gather", "is_dicom_folder", "output_stem", "read_table", "shard"]

_SHOWN = 3


@dataclass(frozen=True)
class Entry:
    """One slide of a cohort."""

    slide: Path
    """Absolute."""
    name: str
    """Of the output, without its suffix: it names the slide's record, log and lock as well."""
    settings: ConversionSettings

    def output(self, folder: Path) -> Path:
        return folder / f"{self.name}.ome.tiff"


@dataclass(frozen=True)
class Cohort:
    """The slides to convert, each once, and what could be a slide and is not among them."""

    entries: tuple[Entry, ...]
    left_out: tuple[LeftOut, ...] = ()

    def shard(self, index: int, count: int) -> Cohort:
        """Part ``index`` of 1..``count``; what was left out belongs to every part."""
        return replace(self, entries=tuple(shard(self.entries, index, count)))


def gather(
    slides: Sequence[Path],
    settings: ConversionSettings,
    *,
    table: Path | None = None,
    recursive: bool = False,
    exclude: Sequence[str] = (),
    folder: Path = Path(),
    leave_out: frozenset[Path] = frozenset(),
) -> Cohort:
    """Every slide once, in the order given, with the settings of its row in ``table`` where it has one.

    Args:
        slides: files, or folders that are searched; ``recursive``: with the folders in them.
        settings: for every slide whose row says nothing else.
        table: a CSV, see :func:`read_table`.
        exclude: patterns of names that a search passes over.
        folder: where outputs go; how long a name may be depends on its file system.
        leave_out: absolute paths that are no input: earlier outputs that lie among the slides.

    Raises:
        SettingsError: there is no slide, the table cannot be understood, or two outputs have one name.
    """
    longest = longest_stem(folder)
    from_table, wrong = read_table(table, settings, longest) if table else ([], [])
    rows = {entry.slide: entry for entry in from_table}
    search = Search(recursive, exclude)
    for given in slides:
        search.add(Path(os.path.abspath(given)))
    paths = without_repeats(path for path in (*search.slides, *rows) if path not in leave_out)
    entries = tuple(rows.get(path) or Entry(path, output_stem(path, longest), settings) for path in paths)
    left_out = tuple(sorted({*search.left_out, *wrong}))
    if not entries:
        raise SettingsError(_no_slides(slides, left_out))
    refuse_collisions(entries)
    return Cohort(entries, left_out)


def read_table(
    table: Path, settings: ConversionSettings, longest: int | None = None
) -> tuple[list[Entry], list[LeftOut]]:
    """The rows of a CSV: ``slide`` and, where they differ from ``settings``, ``mpp``, ``generator`` and ``output``.

    Slides are relative to the table's own folder. A row that is wrong is left out; the second list says why.

    Raises:
        SettingsError: it is no table, or its first row names a column that does not exist.
    """
    longest = longest or longest_stem(table.absolute().parent)
    entries: dict[Path, Entry] = {}
    wrong: list[LeftOut] = []
    for line, row in read_rows(table):
        try:
            if isinstance(row, WrongRowError):
                raise row
            slide = row_slide(table, row)
            if slide in entries:
                raise WrongRowError(f"{printable(slide.name)} has more than one row; the first counts")
            entries[slide] = Entry(slide, row_name(slide, row, longest), row_settings(row, settings))
        except WrongRowError as error:
            wrong.append(wrong_row(table, line, error))
    return list(entries.values()), wrong


def refuse_collisions(entries: Sequence[Entry]) -> None:
    """Two slides must not share an output; names that differ only in case are one on many disks.

    Raises:
        SettingsError: naming both.
    """
    seen: dict[str, Entry] = {}
    pairs = [(seen.setdefault(entry.name.lower(), entry), entry) for entry in entries]
    if clashes := [(first, entry) for first, entry in pairs if first is not entry]:
        first, entry = clashes[0]
        more = f" (and {len(clashes) - 1} more)" if len(clashes) > 1 else ""
        raise SettingsError(
            f"{first.slide} and {entry.slide} would both become {entry.name}.ome.tiff{more}; "
            "give one of them another name in the output column of --csv"
        )


def shard(entries: Sequence[Entry], index: int, count: int) -> list[Entry]:
    """Part ``index`` of 1..``count``: by a hash of the name, so it is the same whatever else the cohort holds."""
    return [entry for entry in entries if _hash(entry.name) % count == index - 1]


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big")


def _no_slides(slides: Sequence[Path], left_out: Sequence[LeftOut]) -> str:
    named = "; ".join(str(each) for each in left_out[:_SHOWN])
    more = f"; and {len(left_out) - _SHOWN} more" if len(left_out) > _SHOWN else ""
    if slides:
        where = ", ".join(map(str, slides[:_SHOWN]))
        return f"{where}: without slides" + (f" that can be taken: {named}{more}" if named else "")
    if named:
        return f"no slides: {named}{more}"
    return "no slides: name files or folders, or give a table with --csv"
