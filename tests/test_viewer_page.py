"""The page in a real browser: locked views, curtain, saved views, links, exports."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.viewing import chromium, serving, stained
from wsi_ihc.viewer.finding import CaseFiles
from wsi_ihc.viewer.server import Viewer

PLACE = "#x=850&y=650&z=1&mode={mode}"


@pytest.fixture(scope="module")
def same(small_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    """An output that shows the H&E as it is: both panes must show the same."""
    with serving([CaseFiles(small_slide, stained(small_slide, tmp_path_factory.mktemp("same"), "identity"))]) as viewer:
        yield viewer


@pytest.fixture(scope="module")
def different(small_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    with serving(
        [CaseFiles(small_slide, stained(small_slide, tmp_path_factory.mktemp("different"), "recolour"))]
    ) as viewer:
        yield viewer


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as page:
        yield page


def opened(page: Any, address: str) -> None:
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_selector("body[data-ready]")
    settle(page)


def settle(page: Any) -> None:
    """All tiles of the view are there and drawn."""
    page.wait_for_function(
        "() => wsiIhc.panes.every((pane) => pane.element.hidden || pane.items.every((item) =>"
        " item.opacity === 0 || item.getFullyLoaded()))"
    )
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def canvas_of(page: Any, pane: int) -> NDArray[np.int16]:
    """What OpenSeadragon drew in a pane, (height, width, 3)."""
    data = page.evaluate(f"() => wsiIhc.panes[{pane}].viewer.drawer.canvas.toDataURL('image/png')")
    return imagecodecs.png_decode(base64.b64decode(data.partition(",")[2]))[..., :3].astype(np.int16)


def views_of(page: Any) -> list[dict[str, float]]:
    return list(page.evaluate("() => wsiIhc.panes.filter((p) => !p.element.hidden).map(wsiIhc.viewOf)"))


def difference(a: NDArray[np.int16], b: NDArray[np.int16], shift: tuple[int, int]) -> float:
    return float(np.abs(np.roll(a, shift, axis=(0, 1)) - b)[20:-20, 20:-20].mean())


def test_panes_are_locked_to_a_pixel(browser: Any, same: Viewer) -> None:
    """After dragging and zooming in one pane the other shows the same pixels in the same places."""
    opened(browser, same.address + "0/" + PLACE.format(mode="side"))
    browser.mouse.move(600, 400)
    browser.mouse.down()
    browser.mouse.move(530, 330, steps=4)
    browser.mouse.up()
    browser.mouse.wheel(0, -120)
    browser.wait_for_timeout(900)
    settle(browser)
    left, right = canvas_of(browser, 0), canvas_of(browser, 1)
    errors = {shift: difference(left, right, shift) for shift in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))}
    assert min(errors, key=errors.__getitem__) == (0, 0)
    assert errors[0, 0] < 3
    a, b = views_of(browser)
    assert a["x"] != 850
    assert all(abs(a[key] - b[key]) < 1e-6 * abs(a[key]) for key in "xyz")


def test_the_curtain_moves_and_stays_on_the_screen(browser: Any, different: Viewer) -> None:
    opened(browser, different.address + "0/" + PLACE.format(mode="side"))
    he = canvas_of(browser, 0)
    opened(browser, different.address + "0/" + PLACE.format(mode="curtain"))
    for share in (0.25, 0.75):
        box = browser.locator("#handle").bounding_box()
        pane = browser.locator("#pane-0").bounding_box()
        browser.mouse.move(box["x"] + box["width"] / 2, 300)
        browser.mouse.down()
        browser.mouse.move(pane["x"] + share * pane["width"], 300, steps=3)
        browser.mouse.up()
        for key in ("", "ArrowRight", "+"):
            if key:
                browser.keyboard.press(key)
            settle(browser)
            assert abs(curtain_of(browser) - share * pane["width"]) <= 1.5
    assert he.shape[1] < pane["width"]


def curtain_of(page: Any) -> int:
    """The first column that is not the H&E's: the recoloured picture is blue and brown, the H&E pink."""
    shown = canvas_of(page, 0).astype(float)
    with_he = page.evaluate("() => { wsiIhc.panes[0].items[1].setOpacity(0); wsiIhc.panes[0].viewer.forceRedraw(); }")
    assert with_he is None
    settle(page)
    he = canvas_of(page, 0).astype(float)
    page.evaluate("() => { wsiIhc.panes[0].items[1].setOpacity(1); wsiIhc.panes[0].viewer.forceRedraw(); }")
    differs = np.abs(shown - he).mean(axis=(0, 2)) > 4
    assert differs[-50:].any()
    return int(np.argmax(differs))


def test_overlay_mixes_both(browser: Any, different: Viewer) -> None:
    seen = []
    for share in ("0", "1", "0.5"):
        opened(browser, different.address + "0/" + PLACE.format(mode="overlay") + f"&share={share}")
        seen.append(canvas_of(browser, 0).astype(float))
    he, virtual, both = seen
    assert np.abs(he - virtual).mean() > 5
    assert np.abs((he + virtual) / 2 - both).mean() < 1


def test_a_link_holds_the_place(browser: Any, different: Viewer) -> None:
    opened(browser, different.address + "0/#x=700.5&y=600.25&z=0.5&mode=curtain&share=0.30&show=tissue")
    (view,) = views_of(browser)
    assert (round(view["x"], 2), round(view["y"], 2), round(view["z"], 4)) == (700.5, 600.25, 0.5)
    browser.keyboard.press("ArrowDown")
    settle(browser)
    link = browser.evaluate("() => location.hash")
    assert "mode=curtain" in link
    assert "share=0.30" in link
    assert "show=tissue" in link
    opened(browser, different.address + "0/" + link)
    assert views_of(browser)[0]["y"] > 600.25
    browser.evaluate("() => { location.hash = '#x=100&y=100&z=2&mode=side'; }")
    browser.wait_for_function("() => wsiIhc.state.view.x === 100")
    assert len(views_of(browser)) == 2


def test_the_pointer_is_told_in_pixels_and_micrometres(browser: Any, different: Viewer) -> None:
    opened(browser, different.address + "0/" + PLACE.format(mode="curtain"))
    pane = browser.locator("#pane-0").bounding_box()
    browser.mouse.move(pane["x"] + pane["width"] / 2 + 100.5, pane["y"] + pane["height"] / 2 - 49.5)
    assert browser.locator("#place").text_content() == "x 950, y 600 px  475.3, 300.3 µm"


def test_a_saved_view_carries_bar_and_mark(browser: Any, different: Viewer) -> None:
    for mode in ("side", "curtain", "overlay"):
        opened(browser, different.address + "0/" + PLACE.format(mode=mode))
        with browser.expect_download() as download:
            browser.keyboard.press("s")
        picture = cv2.imread(str(download.value.path()))
        assert download.value.suggested_filename == "small.tiff_850_650_synthetic.png"
        # The mark's ground, and the dark bar at the foot of the first pane.
        assert (np.abs(picture[-40] - np.array([0xCF, 0xE9, 0xFF])).sum(axis=1) == 0).mean() > 0.5
        assert (picture[-46 - 16, 18 : 18 + 100] < 60).all()


def test_the_mark_stays_in_sight(browser: Any, different: Viewer) -> None:
    opened(browser, different.address)
    for size in ({"width": 1000, "height": 700}, {"width": 400, "height": 700}):
        browser.set_viewport_size(size)
        assert browser.locator("#mark").is_visible()
        assert "SYNTHETIC" in browser.locator("#mark").text_content()
    browser.set_viewport_size({"width": 1000, "height": 700})


def test_keys_reach_everything(browser: Any, different: Viewer) -> None:
    opened(browser, different.address)
    browser.wait_for_function("() => wsiIhc.scene.busy === ''")
    modes = [(browser.keyboard.press(key), browser.evaluate("() => wsiIhc.state.mode"))[1] for key in "231"]
    assert modes == ["curtain", "overlay", "side"]
    browser.keyboard.press("t")
    assert browser.locator("[data-toggle=tissue]").is_checked()
    browser.keyboard.press("9")
    assert views_of(browser)[0]["z"] == pytest.approx(1)
    browser.keyboard.press("0")
    assert views_of(browser)[0]["z"] > 1
    browser.keyboard.press("l")
    assert not browser.locator("#legend").is_visible()


def test_a_hostile_slide_name_stays_text_in_the_browser(small_slide: Path, tmp_path: Path, browser: Any) -> None:
    slide = tmp_path / "<img src=x onerror=alert(1)>&amp;'\".tiff"
    shutil.copy(small_slide, slide)
    with serving([CaseFiles(slide, None)]) as viewer:
        opened(browser, viewer.address)
        assert browser.locator("h1").text_content() == slide.name
        assert browser.locator("#pictures dd").text_content().startswith(slide.name)
        assert browser.locator("img[src=x]").count() == 0


def test_two_people_see_the_same(browser: Any, different: Viewer) -> None:
    second = browser.context.browser.new_page(viewport={"width": 1000, "height": 700})
    for page in (browser, second):
        opened(page, different.address + "0/" + PLACE.format(mode="side"))
    assert np.array_equal(canvas_of(browser, 1), canvas_of(second, 1))
    second.close()
