"""A case as a folder for a colleague: opened by a double click, or put on a web server."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal

import tifffile

from wsi_ihc.errors import OutputError, StorageError
from wsi_ihc.machine.processors import processors
from wsi_ihc.viewer.case import MARK, Case, open_case
from wsi_ihc.viewer.finding import CaseFiles
from wsi_ihc.viewer.page import ASSETS, asset, case_page, cohort_page
from wsi_ihc.viewer.pictures import MEDIA_TYPE, Picture, TileSource, tile_counts
from wsi_ihc.viewer.pyramid_tiles import PyramidTiles

Kind = Literal["folder", "range"]
"""``folder``: a file for each tile, which a browser opens from a disk. ``range``: one file for each picture, of which a
web server sends the parts that are asked for; the output is its own OME-TIFF."""

Advance = Callable[[int], None]
"""Is told how many tiles were written since the last call."""

_SHARED_BYTES = 8192
"""Tiles up to this size are hardly more than glass: equal ones are stored once."""
_AHEAD = 64
"""Tiles that are encoded before they are written: it bounds the memory."""


def export(
    cases: Sequence[CaseFiles], folder: Path, kind: Kind, *, title: str = "", advance: Advance = lambda tiles: None
) -> Path:
    """Writes the pages of ``cases`` and everything that they show into ``folder``; returns the page to open first.

    The folder's name appears when all is written. With a ``title`` the first page lists the cases.

    Raises:
        OutputError: the folder exists.
        StorageError: the disk refuses.
        WsiIhcError: a case cannot be read.
    """
    if folder.exists():
        raise OutputError(f"{folder}: exists already; choose another name for the export")
    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.absolute().parent) as temporary:
            part = Path(temporary) / "export"
            _write_all(cases, part, kind, title, advance)
            os.replace(part, folder)
    except OSError as error:
        if isinstance(error, StorageError) or not error.strerror:
            raise
        raise StorageError(f"{folder}: cannot be written ({error.strerror}); free space or choose another") from None
    return folder / "index.html"


def _write_all(cases: Sequence[CaseFiles], part: Path, kind: Kind, title: str, advance: Advance) -> None:
    (part / "assets").mkdir(parents=True)
    for name in ASSETS:
        (part / "assets" / name).write_bytes(asset(name))
    for number, files in enumerate(cases):
        folder = part / str(number) if title else part
        page = _write_case(files, folder, kind, "../" if title else "", advance)
        (folder / "index.html").write_text(page, encoding="utf-8")
    if title:
        rows = [_row(number, files) for number, files in enumerate(cases)]
        (part / "index.html").write_text(cohort_page(title, MARK, rows, assets="assets"), encoding="utf-8")


def _row(number: int, files: CaseFiles) -> dict[str, Any]:
    note = files.output.name if files.output else ""
    return {"name": files.name, "note": note, "link": f"{number}/index.html", "thumbnails": []}


def _write_case(files: CaseFiles, folder: Path, kind: Kind, up: str, advance: Advance) -> str:
    """The tiles of a case below ``folder``, and its page."""
    with closing(open_case(files)) as case:
        case.look_now()
        write = _write_files if kind == "folder" else _write_pack
        tiles = {number: write(case, number, folder, advance) for number in range(len(case.pictures))}
        scene = case.described(tiles) | {"live": False}
    return case_page(scene, assets=f"{up}assets", back=f"{up}index.html" if up else "")


def tiles_of(cases: Sequence[CaseFiles]) -> int:
    """How many tiles an export of ``cases`` holds."""
    count = 0
    for files in cases:
        with closing(open_case(files)) as case:
            count += sum(len(list(_cells(picture.source))) for picture in case.pictures)
    return count


def _cells(source: TileSource) -> Iterator[tuple[int, int, int]]:
    """Level, row and column of every tile, finest level first, row by row."""
    for level in range(source.levels):
        rows, columns = tile_counts(source.size, level, source.side)
        yield from ((level, row, column) for row in range(rows) for column in range(columns))


def _tiles(source: TileSource) -> Iterator[tuple[tuple[int, int, int], bytes]]:
    """Every tile by its place; several are read at once, few are held."""
    waiting = _cells(source)
    with ThreadPoolExecutor(processors()) as pool:
        while cells := list(islice(waiting, _AHEAD)):
            yield from zip(cells, pool.map(lambda cell: source.tile(*cell), cells), strict=True)


def _write_files(case: Case, number: int, folder: Path, advance: Advance) -> dict[str, Any]:
    source = case.pictures[number].source
    for level in range(source.levels):
        (folder / "tiles" / str(number) / str(level)).mkdir(parents=True)
    for (level, row, column), data in _tiles(source):
        (folder / "tiles" / str(number) / str(level) / f"{row}_{column}.jpg").write_bytes(data)
        advance(1)
    return {"kind": "address", "template": f"tiles/{number}/{{place}}.jpg"}


def _write_pack(case: Case, number: int, folder: Path, advance: Advance) -> dict[str, Any]:
    picture = case.pictures[number]
    folder.mkdir(exist_ok=True)
    if path := _servable(case, picture):
        name = f"{number}.ome.tiff"
        shutil.copyfile(path, folder / name)
        places = stored_places(path)
        advance(sum(map(len, places)))
    else:
        name = f"{number}.tiles"
        with (folder / name).open("wb") as stream:
            places = pack(picture.source, stream, advance)
    return {"kind": "range", "file": name, "places": places}


def _servable(case: Case, picture: Picture) -> Path | None:
    """The output, where its own tiles are JPEG and it is the only plane in its file."""
    source = picture.source
    whole = isinstance(source, PyramidTiles) and source.pyramid.codec.media_type == MEDIA_TYPE
    output = case.files.output
    return output if whole and picture.role == "virtual" and output and output.is_file() else None


Places = list[list[list[int]]]
"""For each level offset and length of every tile, row by row."""


def stored_places(path: Path) -> Places:
    """Where the tiles of an OME-TIFF lie in it."""
    with tifffile.TiffFile(path) as tiff:
        first: Any = tiff.pages[0]
        pages = [first, *(first.pages or ())]
        return [[list(place) for place in zip(page.dataoffsets, page.databytecounts, strict=True)] for page in pages]


def pack(source: TileSource, stream: BinaryIO, advance: Advance = lambda tiles: None) -> Places:
    """Writes the tiles of ``source`` one after the other, equal small ones once; returns where they lie."""
    places: Places = [[] for _ in range(source.levels)]
    shared: dict[bytes, list[int]] = {}
    for (level, _, _), data in _tiles(source):
        place = shared.get(data)
        if place is None:
            place = [stream.tell(), len(data)]
            stream.write(data)
            if len(data) <= _SHARED_BYTES:
                shared[data] = place
        places[level].append(place)
        advance(1)
    return places
