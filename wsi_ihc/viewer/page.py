"""The HTML pages. Names and metadata of files are data: Jinja escapes them, and the scene cannot end its element."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2

from wsi_ihc.machine.text import printable

OPENSEADRAGON = "openseadragon.min.js"
OPENSEADRAGON_VERSION = "6.1.1"
OPENSEADRAGON_SHA256 = "14d587cd3ee7c4861f1a41077ce642029364a21029956ba635bd8fb1202cf9ad"

ASSETS: Mapping[str, str] = {
    OPENSEADRAGON: "text/javascript",
    "viewer.js": "text/javascript",
    "viewer.css": "text/css",
    "LICENSE-openseadragon.txt": "text/plain",
}
"""Files that the pages load, and their media types."""


@cache
def asset(name: str) -> bytes:
    """One of ``ASSETS``."""
    return files("wsi_ihc.viewer").joinpath("assets", name).read_bytes()


def case_page(scene: Mapping[str, Any], *, assets: str, back: str = "") -> str:
    """The page of a case. ``assets`` is the folder that the page loads its scripts from, ``back`` the cohort's page."""
    return _template("case.html.j2").render(
        title=scene["title"], mark=scene["mark"], scene=inline_json(scene), assets=assets, back=back
    )


def cohort_page(title: str, mark: str, rows: list[dict[str, Any]], *, assets: str) -> str:
    """The page of a cohort: a row for each case with ``name``, ``note``, ``link`` and ``thumbnails``."""
    return _template("cohort.html.j2").render(title=title, mark=mark, rows=rows, assets=assets)


def inline_json(value: Any) -> str:
    """JSON that may stand inside a script element: nothing in it ends the element or begins a comment."""
    text = json.dumps(shown(value), ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def shown(value: Any) -> Any:
    """``value`` with every text in it made printable, for the page's script."""
    match value:
        case str():
            return printable(value)
        case dict():
            return {printable(key): shown(each) for key, each in value.items()}
        case list() | tuple():
            return [shown(each) for each in value]
    return value


def page_template(*place: str) -> jinja2.Template:
    """A template of this package. Text is escaped for HTML, and what cannot be seen in it is shown."""
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    return environment.from_string(files("wsi_ihc.viewer").joinpath(*place).read_text(encoding="utf-8"))


@cache
def _template(name: str) -> jinja2.Template:
    return page_template("assets", name)
