"""The live server: one tornado application on the loopback, its pages below a secret path."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any
from urllib.parse import quote

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

from wsi_ihc.errors import StorageError, WsiIhcError
from wsi_ihc.machine.processors import processors
from wsi_ihc.viewer.access import HEADERS, is_loopback, is_token, new_token
from wsi_ihc.viewer.case import MARK, Case, fingerprint, open_case
from wsi_ihc.viewer.finding import CaseFiles
from wsi_ihc.viewer.page import ASSETS, asset, case_page, cohort_page, shown
from wsi_ihc.viewer.pictures import MEDIA_TYPE, tile_counts
from wsi_ihc.viewer.tile_cache import EncodedTiles

logger = logging.getLogger(__name__)

TILE_CACHE_BYTES = 48_000_000
OPEN_CASES = 4
"""Slides that stay open at a time; a slide that is asked for again is opened again."""
KEEP_S = 3600
"""How long a browser may keep a tile without asking. Its address changes with its pixels."""


@dataclass
class Cases:
    """The cases of a server by number, opened when they are first asked for. Thread-safe."""

    files: Sequence[CaseFiles]
    _open: OrderedDict[int, tuple[str, Case]] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def get(self, number: int, *, look_again: bool = False) -> Case:
        """The case of that number; with ``look_again`` it is opened again where its files have changed.

        Raises:
            HTTPError: there is no such case.
            WsiIhcError: it cannot be opened.
        """
        if not 0 <= number < len(self.files):
            raise HTTPError(404)
        with self._lock:
            state, case = self._open.get(number, ("", None))
            if case is None or (look_again and state != _state(self.files[number])):
                if case:
                    case.close()
                state, case = _state(self.files[number]), open_case(self.files[number])
                self._open[number] = state, case
                case.look()
            self._open.move_to_end(number)
            while len(self._open) > OPEN_CASES:
                self._open.popitem(last=False)[1][1].close()
        return case


def _state(files: CaseFiles) -> str:
    """Changes when a file of the case is replaced."""
    paths = [path for path in (files.slide, files.output, *files.others) if path and path.exists()]
    return " ".join(fingerprint(path) for path in paths)


class Viewer:
    """The server. ``address`` is to be shown to the user; it holds the token."""

    def __init__(self, files: Sequence[CaseFiles], *, title: str = "", port: int = 0) -> None:
        """Binds the loopback; ``port`` 0 takes a free one. With one case its page is the first, else the cohort's.

        Raises:
            StorageError: the port is taken.
        """
        self.token = new_token()
        self.cases = Cases(files)
        self.title = title
        self.tiles = EncodedTiles(TILE_CACHE_BYTES)
        self.pool = ThreadPoolExecutor(max(2, processors()), thread_name_prefix="tiles")
        try:
            self._sockets = bind_sockets(port, "127.0.0.1")
        except OSError as error:
            raise StorageError(f"port {port}: cannot be used ({error.strerror}); choose another with --port") from None
        self.port = self._sockets[0].getsockname()[1]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/{self.token}/"

    async def serve(self, until: asyncio.Event) -> None:
        """Answers requests until the event is set."""
        server = HTTPServer(self._application())
        server.add_sockets(self._sockets)
        await until.wait()
        server.stop()
        self.pool.shutdown(wait=False, cancel_futures=True)

    def _application(self) -> Application:
        routes: list[tuple[str, type[_Handler]]] = [
            ("", _First),
            ("assets/(?P<name>[A-Za-z0-9.-]+)", _Asset),
            (r"(?P<number>\d{1,6})/", _CasePage),
            (r"(?P<number>\d{1,6})/scene\.json", _Scene),
            (r"(?P<number>\d{1,6})/(?P<picture>\d{1,3})/thumbnail\.jpg", _Thumbnail),
            (
                r"(?P<number>\d{1,6})/(?P<picture>\d{1,3})/(?P<level>\d{1,2})/(?P<row>\d{1,6})_(?P<column>\d{1,6})\.jpg",
                _Tile,
            ),
        ]
        handlers = [(rf"/(?P<token>[^/]*)/{route}", handler, {"viewer": self}) for route, handler in routes]
        return Application(handlers, default_handler_class=_Nothing, log_function=_log)


class _Handler(RequestHandler):
    """Checks Host and token before anything else; every refusal looks the same."""

    viewer: Viewer

    def initialize(self, viewer: Viewer) -> None:
        self.viewer = viewer

    def prepare(self) -> None:
        if not is_loopback(self.request.host):
            raise HTTPError(403)
        if not is_token(self.path_kwargs.pop("token", ""), self.viewer.token):
            raise HTTPError(404)

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in HEADERS.items():
            self.set_header(name, value)
        self.set_header("Cache-Control", "no-store")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None))[1]
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        if isinstance(error, WsiIhcError):
            self.finish(f"{error}\n")
        else:
            words = {403: "open this page by the address of this machine, 127.0.0.1", 404: "no such page"}
            self.finish(f"{words.get(status_code, 'the page cannot be shown')}\n")

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        if isinstance(value, WsiIhcError):
            logger.warning("%s", value)
        elif not isinstance(value, HTTPError):
            super().log_exception(typ, value, tb)

    async def in_thread(self, function: Any, *arguments: Any, **named: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.viewer.pool, lambda: function(*arguments, **named))


class _Nothing(RequestHandler):
    def prepare(self) -> None:
        raise HTTPError(403 if not is_loopback(self.request.host) else 404)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.finish("no such page\n")


class _First(_Handler):
    """The page of the only case, or the cohort's."""

    def get(self) -> None:
        cases = self.viewer.cases.files
        if len(cases) == 1 and not self.viewer.title:
            self.redirect("0/")
            return
        rows = [_row(number, files) for number, files in enumerate(cases)]
        self.write(cohort_page(self.viewer.title, MARK, rows, assets="assets"))


class _Asset(_Handler):
    def get(self, name: str) -> None:
        if name not in ASSETS:
            raise HTTPError(404)
        self.set_header("Content-Type", f"{ASSETS[name]}; charset=utf-8")
        self.set_header("Cache-Control", "private, no-cache")
        self.write(asset(name))  # tornado adds the ETag and answers 304


class _CasePage(_Handler):
    async def get(self, number: str) -> None:
        case = await self.in_thread(self.viewer.cases.get, int(number), look_again=True)
        back = "../" if self.viewer.title else ""
        self.write(case_page(await self.in_thread(_scene, case), assets="../assets", back=back))


class _Scene(_Handler):
    async def get(self, number: str) -> None:
        case = await self.in_thread(self.viewer.cases.get, int(number), look_again=True)
        self.write(shown(await self.in_thread(_scene, case)))


class _Tile(_Handler):
    async def get(self, number: str, picture: str, level: str, row: str, column: str) -> None:
        case: Case = await self.in_thread(self.viewer.cases.get, int(number))
        place = int(level), int(row), int(column)
        source = _picture(case, int(picture)).source
        _check_place(source, *place)
        version = source.version
        key = (number, picture, version, place)
        self.set_header("Content-Type", MEDIA_TYPE)
        # The address of a tile carries its version, but a picture may change between the page and the tile.
        fresh = self.get_query_argument("v", "") == version
        self.set_header("Cache-Control", f"private, max-age={KEEP_S}" if fresh else "private, no-cache")
        self.set_header("ETag", f'"{version}-{level}-{row}-{column}"')
        if self.check_etag_header():
            self.set_status(304)
            return
        self.write(await self.in_thread(self.viewer.tiles.get, key, lambda: source.tile(*place)))

    def compute_etag(self) -> str | None:
        return None  # set in ``get``, where it costs nothing


class _Thumbnail(_Tile):
    """The coarsest tile, for the cohort's page."""

    async def get(self, number: str, picture: str) -> None:  # type: ignore[override]
        case: Case = await self.in_thread(self.viewer.cases.get, int(number))
        source = _picture(case, int(picture)).source
        await super().get(number, picture, str(source.levels - 1), "0", "0")


def _picture(case: Case, number: int) -> Any:
    if number >= len(case.pictures):
        raise HTTPError(404)
    return case.pictures[number]


def _check_place(source: Any, level: int, row: int, column: int) -> None:
    if level >= source.levels:
        raise HTTPError(404)
    rows, columns = tile_counts(source.size, level, source.side)
    if row >= rows or column >= columns:
        raise HTTPError(404)


def _scene(case: Case) -> dict[str, Any]:
    tiles = {number: {"kind": "address", "template": f"{number}/{{place}}.jpg"} for number in range(len(case.pictures))}
    return case.described(tiles) | {"live": True}


def _row(number: int, files: CaseFiles) -> dict[str, Any]:
    note = files.output.name if files.output else "not stained yet"
    if files.output and not files.output.exists():
        note += ", still running"
    count = sum(path is not None for path in (files.slide, files.output))
    thumbnails = [f"{number}/{picture}/thumbnail.jpg" for picture in range(count)]
    return {"name": files.name, "note": note, "link": f"{quote(str(number))}/", "thumbnails": thumbnails}


def _log(handler: RequestHandler) -> None:
    """Requests are not logged: their paths hold the token."""
