"""A live viewer for tests: its server in a thread, a client without a browser, and a browser."""

from __future__ import annotations

import asyncio
import http.client
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from wsi_ihc.config import ConversionSettings
from wsi_ihc.convert import convert_slide
from wsi_ihc.viewer.finding import CaseFiles
from wsi_ihc.viewer.server import Viewer

CHROMIUM = Path("/usr/bin/chromium")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@contextmanager
def serving(files: Sequence[CaseFiles], title: str = "") -> Generator[Viewer]:
    """A viewer that answers until the context ends."""
    viewer, loop, until = Viewer(files, title=title), asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(viewer.serve(until)))
    thread.start()
    try:
        yield viewer
    finally:
        loop.call_soon_threadsafe(until.set)
        thread.join()
        loop.close()


def get(viewer: Viewer, path: str, *, token: str | None = None, **headers: str) -> Answer:
    """Asks for ``path`` below the secret one."""
    connection = http.client.HTTPConnection("127.0.0.1", viewer.port, timeout=30)
    secret = viewer.token if token is None else token
    connection.request(
        "GET", f"/{secret}/{path}", headers={name.replace("_", "-"): text for name, text in headers.items()}
    )
    response = connection.getresponse()
    answer = Answer(response.status, dict(response.getheaders()), response.read())
    connection.close()
    return answer


def stained(slide: Path, folder: Path, generator: str) -> Path:
    """The output of a built-in generator."""
    settings = ConversionSettings.model_validate({"generator": {"name": generator}, "tissue": {"source": "none"}})
    return convert_slide(slide, folder / f"{slide.stem}_{generator}.ome.tiff", settings).output


@contextmanager
def chromium(**options: Any) -> Generator[Any]:
    """A page of Debian's Chromium; skips where it or playwright is absent. Its console must stay empty."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip("Debian's Chromium is not on this machine; scripts/install_test_tools.sh installs it")
    said: list[str] = []
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page(**{"viewport": {"width": 1000, "height": 700}, **options})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        try:
            yield page
        finally:
            browser.close()
    assert said == []
