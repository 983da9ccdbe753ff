"""The live server: who may ask, what it answers, and that names of files are never more than text."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import imagecodecs
import numpy as np
import pytest
import tifffile

from tests.conftest import stained_island, write_slide
from tests.viewing import get, serving, stained
from wsi_ihc.conversion.store import StoreLayout, TileStore
from wsi_ihc.errors import SettingsError, StorageError, UnreadableSlideError
from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.slides import MemorySlide, SlideView, open_slide
from wsi_ihc.viewer import browser
from wsi_ihc.viewer.access import is_loopback, is_token, new_token
from wsi_ihc.viewer.finding import CaseFiles, case_of, cases_in, store_of
from wsi_ihc.viewer.overview import UNREAD, Overview
from wsi_ihc.viewer.page import (
    ASSETS,
    OPENSEADRAGON,
    OPENSEADRAGON_SHA256,
    OPENSEADRAGON_VERSION,
    asset,
    case_page,
    inline_json,
)
from wsi_ihc.viewer.server import Viewer
from wsi_ihc.viewer.slide_tiles import SlideTiles
from wsi_ihc.viewer.tile_cache import EncodedTiles

HOSTILE = "</script><script>alert(1)</script>&\"'{{7*7}}.tiff"
TILE = "0/0/0/0_0.jpg"


@pytest.fixture(scope="module")
def output(small_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stained(small_slide, tmp_path_factory.mktemp("viewed"), "recolour")


@pytest.fixture(scope="module")
def viewer(small_slide: Path, output: Path) -> Iterator[Viewer]:
    with serving([CaseFiles(small_slide, output)]) as running:
        yield running


def scene_of(viewer: Viewer, number: int = 0) -> dict[str, object]:
    return dict(json.loads(get(viewer, f"{number}/scene.json").body))


def test_openseadragon_is_the_published_file() -> None:
    data = asset(OPENSEADRAGON)
    assert hashlib.sha256(data).hexdigest() == OPENSEADRAGON_SHA256
    assert f"openseadragon {OPENSEADRAGON_VERSION}".encode() in data[:100]
    assert b"Redistributions in binary form" in asset("LICENSE-openseadragon.txt")


def test_every_asset_is_served(viewer: Viewer) -> None:
    assert [get(viewer, f"assets/{name}").body for name in ASSETS] == [asset(name) for name in ASSETS]
    assert get(viewer, "assets/../server.py").status == 404


@pytest.mark.parametrize("path", ["", "0/", "0/scene.json", TILE, "assets/viewer.js"])
def test_nothing_is_shown_without_the_token(viewer: Viewer, path: str) -> None:
    for token in ("", "wrong", viewer.token[:-1], viewer.token + "x", viewer.token.swapcase()):
        answer = get(viewer, path, token=token)
        assert (answer.status, viewer.token.encode() in answer.body) == (404, False)


@pytest.mark.parametrize("path", ["", "0/", TILE])
def test_a_foreign_host_is_refused(viewer: Viewer, path: str) -> None:
    for host in ("evil.example", f"evil.example:{viewer.port}", "127.0.0.1.evil.example", "192.168.0.7"):
        assert get(viewer, path, Host=host).status == 403
    for host in (f"localhost:{viewer.port}", "localhost:9999", "127.0.0.1", "[::1]:80"):
        assert get(viewer, path, Host=host).status in (200, 302)


def test_a_wrong_path_does_not_say_whether_the_token_was_right(viewer: Viewer) -> None:
    assert get(viewer, "9/", token="x").status == get(viewer, "9/").status == 404
    assert get(viewer, "0/9/0/0_0.jpg").status == get(viewer, "0/0/9/0_0.jpg").status == 404
    assert get(viewer, "0/0/0/0_99.jpg").status == 404


def test_tokens_are_long_and_compared_whole() -> None:
    tokens = {new_token() for _ in range(50)}
    assert len(tokens) == 50
    assert min(map(len, tokens)) >= 32
    assert is_token("a", "a")
    assert not is_token("ä", "a")


@pytest.mark.parametrize("host", ["", "[", "localhost.evil.example", "evil@localhost.example", "0.0.0.0"])
def test_only_loopback_names_are_hosts(host: str) -> None:
    assert not is_loopback(host)


def test_headers_keep_the_page_to_itself(viewer: Viewer) -> None:
    for path in ("0/", "0/scene.json", TILE, "assets/viewer.js"):
        headers = get(viewer, path).headers
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Content-Security-Policy"].startswith("default-src 'self'")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Server" not in headers


def test_the_slide_is_served_tile_by_tile(viewer: Viewer, small_slide: Path) -> None:
    tile = get(viewer, TILE)
    shown = imagecodecs.jpeg8_decode(tile.body)
    slide = tifffile.imread(small_slide)[:512, :512]
    assert tile.headers["Content-Type"] == "image/jpeg"
    assert shown.shape == (512, 512, 3)
    assert np.abs(shown.astype(float) - slide).mean() < 3


def test_stored_tiles_of_the_output_are_served_as_they_are(viewer: Viewer, output: Path) -> None:
    with tifffile.TiffFile(output) as tiff:
        offset, length = tiff.pages[0].dataoffsets[1], tiff.pages[0].databytecounts[1]
    assert get(viewer, "0/1/0/0_1.jpg").body == output.read_bytes()[offset : offset + length]


def test_tiles_have_validators(viewer: Viewer) -> None:
    first = get(viewer, TILE)
    version = scene_of(viewer)["pictures"][0]["version"]  # type: ignore[index]
    assert get(viewer, TILE, If_None_Match=first.headers["Etag"]).status == 304
    assert get(viewer, TILE, If_None_Match='"other"').status == 200
    assert first.headers["Cache-Control"] == "private, no-cache"
    assert "max-age" in get(viewer, f"{TILE}?v={version}").headers["Cache-Control"]
    assert get(viewer, "assets/viewer.js", If_None_Match=get(viewer, "assets/viewer.js").headers["Etag"]).status == 304


def test_the_scene_lays_the_output_on_the_slide(viewer: Viewer) -> None:
    scene = scene_of(viewer)
    he, virtual = scene["pictures"]  # type: ignore[misc]
    assert (scene["width"], scene["height"], scene["mpp"]) == (1700, 1300, 0.5)
    assert (he["role"], he["synthetic"], virtual["role"], virtual["synthetic"]) == ("he", False, "virtual", True)
    assert (virtual["width"] * virtual["scale"], virtual["left"], virtual["top"]) == (1700, 0, 0)
    assert "SYNTHETIC" in str(scene["mark"])
    assert scene["facts"]["generator"] == "recolour"  # type: ignore[index]


def test_the_tissue_follows_in_the_background(viewer: Viewer) -> None:
    for _ in range(200):
        scene = scene_of(viewer)
        if not scene["busy"]:
            break
    shapes = {shape["kind"]: shape for shape in scene["shapes"]}  # type: ignore[attr-defined]
    corners = np.reshape(shapes["tissue"]["rings"][0], (-1, 2))
    # The island is an ellipse of sqrt(0.7) of the plane, and the margin is 64 px.
    assert np.abs(corners.min(axis=0) - (850 * (1 - 0.7**0.5) - 64, 650 * (1 - 0.7**0.5) - 64)).max() < 40


def test_a_hostile_name_is_text(tmp_path: Path, output: Path) -> None:
    slide = tmp_path / HOSTILE.replace("/", "\u2215")
    write_slide(slide, stained_island(300, 400))
    with serving([CaseFiles(slide, None)]) as running:
        page = get(running, "0/").body.decode()
    assert "<script>alert" not in page
    assert page.count("<script") == 3
    hostile = inline_json({"name": HOSTILE + "<!--"})
    assert not set("<>&") & set(hostile)
    assert json.loads(hostile)["name"] == HOSTILE + "<!--"


def test_hostile_metadata_is_text(viewer: Viewer) -> None:
    scene = scene_of(viewer) | {"title": HOSTILE, "facts": {HOSTILE: HOSTILE}, "notices": [HOSTILE]}
    page = case_page(scene, assets="assets")
    assert "<script>alert" not in page
    inside = re.search(r'<script type="application/json" id="scene">(.*?)</script>', page, re.DOTALL)
    assert inside
    assert json.loads(inside[1])["facts"] == {HOSTILE: HOSTILE}


def test_one_address_serves_a_cohort(small_slide: Path, output: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copy(output, tmp_path / f"{name}_ihc.ome.tiff")
    cases = list(cases_in(tmp_path))
    with serving(cases, title="night <1>") as running:
        page = get(running, "").body.decode()
        assert "night &lt;1&gt;: 2 slides" in page
        links = re.findall(r'href="(\d+/)"', page)
        assert [get(running, link).status for link in links] == [200, 200]
        thumbnails = re.findall(r'src="([^"]+)"', page)
        assert [get(running, thumbnail).body[:2] for thumbnail in thumbnails] == [b"\xff\xd8"] * 2


def test_a_run_that_still_goes_on_is_shown(small_slide: Path, output: Path, tmp_path: Path) -> None:
    """Blocks appear as they are stained, and the output takes their place."""
    target = tmp_path / "x_ihc.ome.tiff"
    store = TileStore.create(store_of(target), StoreLayout(Size(1300, 1700), 512, mpp=0.5), {})
    brown = np.full((512, 512, 3), (120, 80, 40), np.uint8)
    with serving([case_of([small_slide, target])]) as running:
        running.cases.get(0).running.clock = iter(range(10**6)).__next__  # type: ignore[union-attr, assignment]
        first = scene_of(running)
        assert (first["running"], first["busy"]) == (True, "staining, 0 of 12 blocks")
        for column in range(2):
            store.put(1, column, {"stained": brown})
        second = scene_of(running)
        shapes = {shape["kind"]: shape for shape in second["shapes"]}  # type: ignore[attr-defined]
        assert (second["busy"], len(shapes["stained"]["rings"]), len(shapes["blocks"]["rings"])) == (
            "staining, 2 of 12 blocks",
            2,
            10,
        )
        assert shapes["stained"]["rings"][1] == [512, 512, 1024, 512, 1024, 1024, 512, 1024]
        assert [p["version"] for p in first["pictures"]] != [p["version"] for p in second["pictures"]]  # type: ignore[attr-defined]
        for place, pixel in (("0/1_1", (256, 256)), ("2/0_0", (192, 192))):
            tile = imagecodecs.jpeg8_decode(get(running, f"0/1/{place}.jpg").body)
            assert np.abs(tile[pixel].astype(int) - brown[0, 0]).max() < 4
        shutil.copy(output, target)
        shutil.rmtree(store.path)
        assert scene_of(running)["running"] is False


def test_a_replaced_file_is_opened_again(small_slide: Path, output: Path, tmp_path: Path) -> None:
    mine = tmp_path / "x_ihc.ome.tiff"
    shutil.copy(output, mine)
    with serving([CaseFiles(None, mine)]) as running:
        before = scene_of(running)["pictures"][0]["version"]  # type: ignore[index]
        mine.unlink()
        shutil.copy(output, mine)
        get(running, "0/")
        assert scene_of(running)["pictures"][0]["version"] != before  # type: ignore[index]


def test_files_find_each_other(
    small_slide: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = tmp_path / "case.7.tiff"
    shutil.copy(small_slide, slide)
    shutil.copy(output, tmp_path / "case.7_ihc.ome.tiff")
    monkeypatch.chdir(tmp_path.parent)
    assert case_of([slide]).output == tmp_path / "case.7_ihc.ome.tiff"
    shutil.copy(small_slide, tmp_path / small_slide.name)
    assert case_of([tmp_path / "case.7_ihc.ome.tiff"]).slide == tmp_path / small_slide.name
    both = case_of([slide, tmp_path / "case.7_ihc.ome.tiff", small_slide])
    assert both == CaseFiles(slide, tmp_path / "case.7_ihc.ome.tiff", (small_slide,))
    with pytest.raises(UnreadableSlideError, match="no such file"):
        case_of([tmp_path / "absent.svs"])
    with pytest.raises(SettingsError, match="a second output"):
        case_of([output, tmp_path / "case.7_ihc.ome.tiff"])


def test_a_taken_port_is_one_line(viewer: Viewer) -> None:
    with pytest.raises(StorageError, match="--port"):
        Viewer([], port=viewer.port)


def test_the_browser_never_gets_the_token_on_a_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(browser.webbrowser, "open", seen.append)
    with browser.opened("http://127.0.0.1:1/secret/"):
        while not seen:
            pass
        page = Path(seen[0].removeprefix("file://"))
        assert "secret" not in seen[0]
        assert stat.S_IMODE(os.stat(page).st_mode) == 0o600
        assert "url=http://127.0.0.1:1/secret/" in page.read_text()
    assert not page.exists()


def test_the_cache_of_tiles_is_bounded() -> None:
    tiles, made = EncodedTiles(100), io.StringIO()
    for number in (1, 2, 1, 3, 1, 2):
        tiles.get(number, lambda: bytes(40 if made.write(f"{number}") else 0))  # noqa: B023
    assert made.getvalue() == "1232"


def test_coarse_tiles_of_a_slide_with_one_level_come_from_its_overview(tmp_path: Path) -> None:
    """They fill while the overview is read, and their version tells the page so."""

    slide = MemorySlide(np.full((9000, 9000, 3), 90, np.uint8), mpp=0.5)
    tiles = SlideTiles(slide, Overview.of(slide), "x")
    assert tiles.levels == 6
    before = tiles.version
    assert abs(int(imagecodecs.jpeg8_decode(tiles.tile(5, 0, 0))[100, 100, 0]) - UNREAD) < 3
    assert abs(int(imagecodecs.jpeg8_decode(tiles.tile(3, 0, 0))[100, 100, 0]) - 90) < 3

    tiles.overview.read(Event())
    assert tiles.version != before
    assert abs(int(imagecodecs.jpeg8_decode(tiles.tile(5, 0, 0))[100, 100, 0]) - 90) < 3


def test_overview_tiles_lie_where_exact_ones_would(small_slide: Path) -> None:

    slide = open_slide(small_slide)
    overview = Overview.of(slide)
    overview.read(Event())
    for scale in (8.0, 32.0):
        region = Region(5, 3, 30, 40)
        exact = SlideView.reduced(slide, scale).read(region).astype(float)
        near = overview.resampled(region, scale)
        errors = {
            shift: np.abs(np.roll(near, shift, axis=(0, 1)) - exact)[4:-4, 4:-4].mean()
            for shift in ((0, 0), (1, 0), (0, 1), (-1, 0), (0, -1))
        }
        assert min(errors, key=errors.__getitem__) == (0, 0)
