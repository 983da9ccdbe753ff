"""The table of ``--csv``: a row for each slide. A row that is wrong is left out; the others count."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from wsi_ihc.batch.naming import unusable
from wsi_ihc.batch.search import LeftOut
from wsi_ihc.config import ConversionSettings
from wsi_ihc.errors import SettingsError
from wsi_ihc.machine.text import printable
from wsi_ihc.output.names import output_stem, without_suffix

COLUMNS = ("slide", "mpp", "generator", "output")
_DELIMITERS = ",;\t"


class WrongRowError(ValueError):
    """A row of the table that names no slide to convert; the message says why."""


def read_rows(table: Path) -> Iterator[tuple[int, dict[str, str] | WrongRowError]]:
    """The line of each row, and its cells by column or what is wrong with it.

    Commas, semicolons or tabs, as spreadsheets write them. Bytes that are not UTF-8 are kept: a file name may have
    the same.

    Raises:
        SettingsError: the file cannot be read as a table, or its first row names a column that does not exist.
    """
    try:
        text = table.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    except OSError as error:
        raise SettingsError(f"{table}: cannot be read ({error.strerror}); check the path") from None
    if "\0" in text.partition("\n")[0]:
        raise SettingsError(f"{table}: not a table in UTF-8; save it as CSV in UTF-8")
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=lambda each: (first.count(each), -_DELIMITERS.index(each)))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns = _columns(table, next(_cells(table, reader), (1, []))[1])
    for line, cells in _cells(table, reader):
        if isinstance(cells, WrongRowError):
            yield line, cells
        elif len(cells) > len(columns):
            yield line, WrongRowError(f"{len(cells)} cells, but the first row has {len(columns)}")
        elif any(cells):
            yield line, dict(zip(columns, cells, strict=False))


def row_slide(table: Path, row: dict[str, str]) -> Path:
    """The slide of a row, absolute; relative names begin at the table's own folder.

    A name with backslashes, as Windows writes it, is understood where no file has exactly that name.

    Raises:
        WrongRowError: the row names no possible file.
    """
    text = row["slide"]
    if not text:
        raise WrongRowError("names no slide")
    if "\0" in text:
        raise WrongRowError(f"{printable(text)} is no possible name of a file")
    folder = table.absolute().parent
    try:
        slide = Path(os.path.abspath(folder / Path(text).expanduser()))
        if "\\" in text and not os.path.lexists(slide):
            slide = Path(os.path.abspath(folder / text.replace("\\", "/")))
        found = slide.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise WrongRowError(f"{printable(text)} is no possible name of a file ({error})") from None
    if not found and any("\udc80" <= each <= "\udcff" for each in text):
        raise WrongRowError(f"{printable(text)} is not UTF-8, and no file has this name; save the table in UTF-8")
    return slide


def row_name(slide: Path, row: dict[str, str], longest: int) -> str:
    """The name of the row's output without its suffix.

    Raises:
        WrongRowError: the row gives a name that no output can have.
    """
    given = without_suffix(row.get("output", ""))
    if given and (reason := unusable(given, longest)):
        raise WrongRowError(f"output {printable(row['output'])} {reason}")
    return given or output_stem(slide, longest)


def row_settings(row: dict[str, str], settings: ConversionSettings) -> ConversionSettings:
    """``settings`` with what the row says.

    Raises:
        WrongRowError: a value is out of range or no value of that kind.
    """
    changed = settings
    if mpp := row.get("mpp"):
        changed = _changed(changed, "slide", "mpp", mpp.replace(",", "."))
    if generator := row.get("generator"):
        changed = _changed(changed, "generator", "name", generator)
    return changed


def wrong_row(table: Path, line: int, error: Exception) -> LeftOut:
    """What a summary says of a row that is left out."""
    return LeftOut(f"{table.absolute()}, line {line}", str(error))


def _changed(settings: ConversionSettings, section: str, key: str, value: str) -> ConversionSettings:
    part = getattr(settings, section)
    try:
        part = type(part).model_validate(part.model_dump() | {key: value})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise WrongRowError(f"{key}: {first['msg']}, got {printable(first['input'])!r}") from None
    return settings.model_copy(update={section: part})


def _columns(table: Path, header: Sequence[str] | WrongRowError) -> list[str]:
    if isinstance(header, WrongRowError):
        raise SettingsError(f"{table}: not a table ({header})")
    columns = [
        {"output name": "output"}.get(word, word) for word in (cell.lower().replace("_", " ") for cell in header)
    ]
    if unknown := [word for word in columns if word not in COLUMNS]:
        raise SettingsError(
            f"{table}: unknown column {printable(unknown[0])!r}; known are {', '.join(COLUMNS)}, in UTF-8"
        )
    if "slide" not in columns or len(set(columns)) < len(columns):
        raise SettingsError(f"{table}: the first row must name each column once, slide among them")
    return columns


def _cells(table: Path, reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str] | WrongRowError]]:
    """Rows as the csv module splits them, with the line on which each begins."""
    line = getattr(reader, "line_num", 0) + 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise SettingsError(
                    f"{table}: not a table (line {line} opens a quotation mark that is never closed)"
                ) from None
            yield line, WrongRowError(f"not a row of a table ({error})")
        else:
            yield line, [cell.strip(" \t\r\n\ufeff") for cell in cells]
        line = getattr(reader, "line_num", line) + 1
