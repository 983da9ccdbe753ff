"""Exports: a folder that opens by a double click, and one that a web server sends by parts."""

from __future__ import annotations

import http.server
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tests.test_viewer_page import canvas_of, difference, opened, views_of
from tests.viewing import chromium, stained
from wsi_ihc.cli import cli
from wsi_ihc.errors import OutputError
from wsi_ihc.viewer.export import export, tiles_of
from wsi_ihc.viewer.finding import CaseFiles

PLACE = "#x=850&y=650&z=1&mode=side"


@pytest.fixture(scope="module")
def case(small_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> CaseFiles:
    return CaseFiles(small_slide, stained(small_slide, tmp_path_factory.mktemp("exported"), "identity"))


@pytest.fixture(scope="module")
def folder(case: CaseFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export([case], tmp_path_factory.mktemp("a") / "folder", "folder").parent


@pytest.fixture(scope="module")
def pack(case: CaseFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export([case], tmp_path_factory.mktemp("b") / "pack", "range").parent


class WithRanges(http.server.SimpleHTTPRequestHandler):
    """What nginx and Apache do with a range."""

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not asked:
            super().do_GET()
            return
        data = Path(self.translate_path(self.path)).read_bytes()
        first, last = int(asked[1]), int(asked[2])
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(data[first : last + 1])

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class WithoutRanges(http.server.SimpleHTTPRequestHandler):
    """Python's own server sends the whole file, with status 200."""

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def served(folder: Path, handler: type[http.server.SimpleHTTPRequestHandler]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/index.html"
        server.shutdown()


def looks_right(page: Any) -> None:
    """Both sides are there, show the same, and say what they are."""
    assert len(views_of(page)) == 2
    left, right = canvas_of(page, 0), canvas_of(page, 1)
    assert left.std() > 10
    assert difference(left, right, (0, 0)) < 3
    assert "SYNTHETIC" in page.locator("#mark").text_content()
    assert page.locator("[data-toggle=tissue]").count() == 1


def drawn_sharply(page: Any) -> list[bool]:
    """Pictures of a page from a disk cannot be read back; what was loaded can be asked."""
    return list(page.evaluate("() => wsiIhc.panes.map((p) => p.items[p.number].getFullyLoaded())"))


def test_a_folder_opens_from_a_disk(folder: Path) -> None:
    with chromium() as page:
        opened(page, (folder / "index.html").as_uri() + PLACE)
        assert drawn_sharply(page) == [True, True]
        assert "SYNTHETIC" in page.locator("#mark").text_content()
        shot = page.screenshot()
        page.keyboard.press("s")
        assert "Take a screenshot" in page.locator("#said").text_content()
    assert len(shot) > 100_000


def test_a_folder_opens_from_any_server(folder: Path) -> None:
    with served(folder, WithoutRanges) as address, chromium() as page:
        opened(page, address + PLACE)
        looks_right(page)
        with page.expect_download() as download:
            page.keyboard.press("s")
        assert download.value.suggested_filename.endswith("_synthetic.png")


def test_a_pack_opens_through_ranges(pack: Path) -> None:
    with served(pack, WithRanges) as address, chromium() as page:
        opened(page, address + PLACE)
        looks_right(page)


def test_a_server_without_ranges_is_refused_in_words(pack: Path) -> None:
    with served(pack, WithoutRanges) as address, chromium() as page:
        page.goto(address)
        page.wait_for_selector("#refusal")
        assert "answered 200" in page.locator("#refusal").text_content()
        assert "206" in page.locator("#refusal").text_content()
        assert page.locator("canvas").count() == 0


def test_a_pack_says_why_a_disk_is_not_enough(pack: Path) -> None:
    with chromium() as page:
        page.goto((pack / "index.html").as_uri())
        page.wait_for_selector("#refusal")
        assert "--single-folder" in page.locator("#refusal").text_content()


def test_the_pack_holds_the_output_itself(pack: Path, case: CaseFiles) -> None:
    assert case.output
    assert (pack / "1.ome.tiff").read_bytes() == case.output.read_bytes()
    assert sorted(path.name for path in pack.iterdir()) == ["0.tiles", "1.ome.tiff", "assets", "index.html"]


def test_both_kinds_hold_every_tile(folder: Path, case: CaseFiles) -> None:
    assert len(list(folder.rglob("*.jpg"))) == tiles_of([case]) == 2 * (12 + 4 + 1)


def test_an_export_replaces_nothing(case: CaseFiles, folder: Path) -> None:
    with pytest.raises(OutputError, match="exists already"):
        export([case], folder, "folder")


def test_a_failed_export_leaves_nothing(case: CaseFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", broken)
    with pytest.raises(OSError, match="No space left"):
        export([case], tmp_path / "out", "folder")
    assert list(tmp_path.iterdir()) == []


def test_a_cohort_is_exported_with_its_page(case: CaseFiles, tmp_path: Path) -> None:
    assert case.output
    for name in ("a", "b"):
        (tmp_path / "in").mkdir(exist_ok=True)
        shutil.copy(case.output, tmp_path / "in" / f"{name}_ihc.ome.tiff")
    done = CliRunner().invoke(
        cli, ["view", str(tmp_path / "in"), "--export", str(tmp_path / "out")], catch_exceptions=False
    )
    assert done.exit_code == 0
    with chromium() as page:
        page.goto((tmp_path / "out" / "index.html").as_uri())
        page.click("text=b_ihc.ome.tiff")
        page.wait_for_selector("body[data-ready]")
        assert np.array(views_of(page)).shape == (1,)
        page.click("text=All slides")
        assert page.locator(".cases li").count() == 2
