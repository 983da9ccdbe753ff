"""Which slides make a cohort, and what each one's output is called."""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from wsi_ihc.config import ConversionSettings
from wsi_ihc.errors import SettingsError
from wsi_ihc.slides.identify import is_dicom

SUFFIXES = frozenset(
    {".svs", ".tif", ".tiff", ".btf", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".bif", ".svslide", ".czi"}
)
"""What a search of folders takes for a slide; a file that is named itself may have any name."""

_OUR_OWN = ("_ihc.ome.tiff", ".blocks.zarr")
_COLUMNS = ("slide", "mpp", "generator", "output")
_OUTPUT_SUFFIX = re.compile(r"(\.ome)?\.tiff?$", re.IGNORECASE)


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


def gather(
    slides: Sequence[Path],
    settings: ConversionSettings,
    *,
    table: Path | None = None,
    recursive: bool = False,
    leave_out: frozenset[Path] = frozenset(),
) -> list[Entry]:
    """Every slide once, in the order given, with the settings of its row in ``table`` where it has one.

    ``leave_out`` are absolute paths that are no input: earlier outputs that lie among the slides.

    Raises:
        SettingsError: a folder without slides, a table that cannot be understood, or two outputs of one name.
    """
    rows = {entry.slide: entry for entry in read_table(table, settings)} if table else {}
    found = {path: None for given in slides for path in find_slides(given, recursive=recursive)}
    paths = [path for path in (*found, *(path for path in rows if path not in found)) if path not in leave_out]
    entries = [rows.get(path) or Entry(path, output_name(path), settings) for path in paths]
    if not entries:
        raise SettingsError("no slides: name files or folders, or give a table with --csv")
    refuse_collisions(entries)
    return entries


def find_slides(given: Path, *, recursive: bool = False) -> Iterator[Path]:
    """The slide ``given``, or the slides in that folder, absolute and in order of name.

    A folder with DICOM files in it is a slide itself. Hidden files are passed over.

    Raises:
        SettingsError: a folder without slides.
    """
    given = _absolute(given)
    if not given.is_dir() or is_dicom_folder(given):
        yield given
        return
    found = False
    for path in _inside(given, recursive):
        found = True
        yield path
    if not found:
        deeper = "" if recursive else "; --recursive also searches the folders in it"
        raise SettingsError(f"{given}: a folder without slides{deeper}")


def is_dicom_folder(folder: Path) -> bool:
    """Whether DICOM files lie directly in ``folder``; a DICOMDIR's files often have no suffix."""
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    if any(path.suffix.lower() in SUFFIXES for path in files):
        return False
    return any(path.suffix.lower() == ".dcm" or (not path.suffix and is_dicom(path)) for path in files)


def read_table(table: Path, settings: ConversionSettings) -> list[Entry]:
    """The rows of a CSV: ``slide`` and, where they differ from ``settings``, ``mpp``, ``generator`` and ``output``.

    Slides are relative to the table's own folder. Commas or semicolons, as spreadsheets write them.

    Raises:
        SettingsError: it cannot be read, has a column that nobody knows, or a value that cannot be.
    """
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{table}: cannot be read as a table in UTF-8 ({error})") from None
    first = text.partition("\n")[0]
    reader = csv.reader(text.splitlines(), delimiter=";" if first.count(";") > first.count(",") else ",", strict=True)
    try:
        header, *rows = [[cell.strip() for cell in row] for row in reader] or [[]]
    except csv.Error as error:
        raise SettingsError(f"{table}: not a table ({error})") from None
    columns = [
        {"output name": "output"}.get(word, word) for word in (cell.lower().replace("_", " ") for cell in header)
    ]
    if unknown := [word for word in columns if word not in _COLUMNS]:
        raise SettingsError(f"{table}: unknown column {unknown[0]!r}; known are {', '.join(_COLUMNS)}")
    if "slide" not in columns or len(set(columns)) < len(columns):
        raise SettingsError(f"{table}: the first row must name each column once, slide among them")
    entries = []
    for number, row in enumerate(rows, start=2):
        if any(row):
            if len(row) > len(columns):
                raise SettingsError(f"{table}: line {number} has {len(row)} cells, the first row {len(columns)}")
            entries.append(_entry(table, number, dict(zip(columns, row, strict=False)), settings))
    slides = [entry.slide for entry in entries]
    if twice := next((slide for slide in slides if slides.count(slide) > 1), None):
        raise SettingsError(f"{table}: {twice.name} has more than one row")
    return entries


def output_name(slide: Path) -> str:
    """``case.7_ihc`` for ``case.7.svs``; a folder has no suffix to lose."""
    stem = slide.name if slide.is_dir() else _OUTPUT_SUFFIX.sub("", slide.name)
    return f"{stem if slide.is_dir() or stem != slide.name else slide.stem}_ihc"


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


def _inside(folder: Path, recursive: bool) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.endswith(_OUR_OWN):
            continue
        if path.is_file():
            if path.suffix.lower() in SUFFIXES:
                yield path
        elif path.is_dir():
            if is_dicom_folder(path):
                yield path
            elif recursive:
                yield from _inside(path, recursive)


def _absolute(path: Path) -> Path:
    """Without dots, so that a slide that is named twice is one slide; links stay, for their names are what counts."""
    return Path(os.path.abspath(path))


def _entry(table: Path, number: int, row: dict[str, str], settings: ConversionSettings) -> Entry:
    if not row["slide"]:
        raise SettingsError(f"{table}: line {number} names no slide")
    slide = _absolute(table.absolute().parent / Path(row["slide"]).expanduser())
    name = _OUTPUT_SUFFIX.sub("", row.get("output", "")) or output_name(slide)
    if "/" in name or "\\" in name or name.startswith("."):
        raise SettingsError(
            f"{table}: line {number}: {row['output']!r} is not the name of a file; folders come from -o"
        )
    values = settings.model_dump()
    if row.get("mpp"):
        values["slide"]["mpp"] = row["mpp"].replace(",", ".")
    if row.get("generator"):
        values["generator"]["name"] = row["generator"]
    try:
        return Entry(slide, name, ConversionSettings.model_validate(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise SettingsError(f"{table}: line {number}: {first['msg']}, got {first['input']!r}") from None
