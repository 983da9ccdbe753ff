"""The report of an output: true figures, small, readable, and safe to open."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.conftest import provenance, stained_island, write_slide
from tests.viewing import chromium, stained
from wsi_ihc.cli import cli
from wsi_ihc.errors import OutputError, SettingsError, UnsupportedSlideError
from wsi_ihc.measures.readout import Readout, read_dab
from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.slides import open_slide
from wsi_ihc.tissue import TissueMask
from wsi_ihc.tissue.regions import read_regions
from wsi_ihc.viewer.outputs import open_output
from wsi_ihc.viewer.report import report_path, write_report
from wsi_ihc.viewer.report.choosing import choose_fields
from wsi_ihc.viewer.report.page import LARGEST_BYTES, Contents, render
from wsi_ihc.viewer.report.pictures import Picture, read, whole_picture
from wsi_ihc.viewer.report.scan import FIELD_PX, Field, mask_pixels, scan

HOSTILE = "</p><script>alert(1)</script>&\"'{{7*7}}"


@pytest.fixture(scope="module")
def output(small_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reported")
    shutil.copy(small_slide, folder)
    return stained(small_slide, folder, "recolour")


@pytest.fixture(scope="module")
def page(output: Path) -> str:
    return write_report(output, output.with_name("page.html")).read_text()


def geojson(path: Path, **regions: tuple[int, int, int, int]) -> Path:
    """Rectangles left, top, right, bottom by name."""
    features = [
        {
            "type": "Feature",
            "properties": {"name": name},
            "geometry": {"type": "Polygon", "coordinates": [[[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]]},
        }
        for name, (x0, y0, x1, y1) in regions.items()
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def test_the_first_line_says_synthetic(page: str) -> None:
    body = re.sub(r"<[^>]+>", "", page.partition("<body>")[2]).strip()
    assert body.startswith("SYNTHETIC. Research use only")


def test_the_page_is_small_and_needs_nothing_else(page: str) -> None:
    assert len(page.encode()) < LARGEST_BYTES == 300_000
    assert "<script" not in page
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    assert page.count("data:image/jpeg;base64,") == 2 + 2 * 3


def test_every_picture_has_a_text(page: str) -> None:
    assert len(re.findall(r'<svg[^>]+role="img" aria-label="[^"]{20,}"', page)) == page.count("<svg") == 2 + 6 + 1
    assert re.findall(r"<h(\d)", page)[:3] == ["1", "2", "2"]


def test_the_readout_is_that_of_all_pixels_at_once(output: Path, page: str) -> None:
    opened = open_output(output)
    pyramid = opened.pyramids["stained"]
    everywhere = TissueMask(np.ones((1, 1), bool), 10_000.0, pyramid.levels[0])
    found = scan(pyramid, everywhere, (255, 255, 255), {})
    whole = read_dab(read(pyramid, 0, Region(0, 0, *pyramid.levels[0])))
    assert found.whole.counts == whole.counts
    assert found.whole.pixels == 1700 * 1300
    assert sum((field.readout for field in found.fields), Readout()).counts == whole.counts
    assert "no HER2 score" not in page  # the stain is not HER2
    assert "no H-score" in page


def test_regions_are_read_alone(output: Path, tmp_path: Path) -> None:
    drawn = geojson(tmp_path / "regions.geojson", left=(0, 0, 850, 1300), **{"right <b>": (850, 0, 1700, 1300)})
    text = write_report(output, tmp_path / "page.html", regions=drawn).read_text()
    rows = re.findall(r"<tr><td>(.*?)</td><td>([\d.]+)</td>", text)
    assert [name for name, _ in rows] == ["all tissue", "left", "right &lt;b&gt;"]
    whole, left, right = (float(area) for _, area in rows)
    assert left + right == pytest.approx(whole, abs=0.011)
    with pytest.raises(SettingsError, match="outside the slide"):
        write_report(output, tmp_path / "x.html", regions=geojson(tmp_path / "b.geojson", far=(0, 0, 9000, 9)))
    with pytest.raises(SettingsError, match="no polygons"):
        write_report(output, tmp_path / "x.html", regions=geojson(tmp_path / "c.geojson"))


def test_annotations_of_one_name_are_one_region(tmp_path: Path) -> None:
    path = geojson(tmp_path / "r.geojson", tumour=(0, 0, 8, 8))
    document = json.loads(path.read_text())
    other = geojson(tmp_path / "o.geojson", tumour=(8, 8, 16, 16))
    document["features"] += json.loads(other.read_text())["features"]
    path.write_text(json.dumps(document))
    masks = read_regions(path, size=Size(16, 16), scale=1.0, downsample=1.0)
    assert {name: int(mask.pixels.sum()) for name, mask in masks.items()} == {"tumour": 128}


def test_masks_reach_pixels_by_their_centres() -> None:
    mask = TissueMask(np.array([[True, False], [False, True]]), 4.0, Size(7, 7))
    seen = mask_pixels(mask, Region(2, 2, 4, 5))
    assert seen.astype(int).tolist() == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 1, 1], [0, 0, 1, 1, 1]]


def field(score: int, tissue: float = 1.0, left: int = 0) -> Field:
    pixels = round(tissue * FIELD_PX**2)
    strong = round(pixels * score / 300)
    return Field(Region(0, left, FIELD_PX, FIELD_PX), Readout((pixels - strong, 0, 0, strong)))


def test_fields_are_the_extremes_and_the_middle() -> None:
    fields = [field(score, left=score) for score in (50, 10, 200, 100, 90)] + [field(299, tissue=0.2)]
    chosen = {name: found.place.left for name, found in choose_fields(fields).items()}
    assert chosen == {"strongest": 200, "median": 90, "weakest": 10}
    doubtful = choose_fields(fields, doubt=lambda found: -abs(found.place.left - 100))
    assert doubtful["most doubtful"].place.left == 100
    assert list(choose_fields([field(7)])) == ["strongest"]
    assert choose_fields([]) == {}


def test_the_thumbnail_shows_the_whole(output: Path) -> None:
    pyramid = open_output(output).pyramids["stained"]
    assert whole_picture(pyramid, 440).shape == (336, 440, 3)
    assert whole_picture(pyramid, 5000).shape == (1300, 1700, 3)


def test_without_the_slide_one_side_is_shown(output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = tmp_path / "deep" / "a_ihc.ome.tiff"
    alone.parent.mkdir()
    shutil.copy(output, alone)
    monkeypatch.chdir(alone.parent)
    text = write_report(alone).read_text()
    assert report_path(alone) == alone.parent / "a_ihc.html"
    assert "the H&amp;E was not found" in text
    assert text.count("data:image/jpeg;base64,") == 1 + 3


def test_the_stain_of_h_and_e_pixels_is_not_read(small_slide: Path, tmp_path: Path) -> None:
    text = write_report(stained(small_slide, tmp_path, "identity"), slide=small_slide).read_text()
    assert "this output shows no DAB" in text


def test_a_page_is_not_replaced_unasked(output: Path, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        write_report(output, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == "mine"
    write_report(output, tmp_path / "page.html", overwrite=True)


def test_only_outputs_are_reported(small_slide: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedSlideError, match="not an output of wsi-ihc"):
        write_report(small_slide, tmp_path / "page.html")


def contents(**changes: object) -> Contents:
    noise = np.random.default_rng(0).integers(0, 255, (440, 440, 3), dtype=np.uint8)
    facts: dict[str, object] = {
        "output": "a_ihc.ome.tiff",
        "provenance": provenance(Size(440, 440)),
        "size": Size(440, 440),
        "he": Picture(noise),
        "ihc": Picture(noise),
        "tissue": None,
        "fields": [],
        "whole": Readout(),
        "regions": {},
        "notices": (),
        "run": {},
        "card": {},
    }
    return Contents(**facts | changes)  # type: ignore[arg-type]


def test_hostile_words_are_text() -> None:
    made = provenance(Size(440, 440), source_name=HOSTILE.replace("/", "\u2215"), stain=HOSTILE, generator=HOSTILE)
    page = render(contents(provenance=made, notices=(HOSTILE,), card={HOSTILE: HOSTILE}, output=HOSTILE))
    assert "<script" not in page
    assert "49" not in re.sub(r"base64,[^\"]+", "", page)
    assert "&lt;script&gt;" in page


def test_pictures_of_noise_still_fit() -> None:
    assert len(render(contents()).encode()) < LARGEST_BYTES


def test_what_a_run_measured_on_itself_is_shown() -> None:
    page = render(contents(run={"seams": {"rank_of_the_lines": 0.51}}))
    assert "<h2>Seams</h2>" in page
    assert "rank of the lines" in page


def test_colours_have_contrast(page: str) -> None:
    def luminance(colour: str) -> float:
        values = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    colours = dict(re.findall(r"--(\w+):(#[0-9a-f]{6})", page))
    for ink, ground in (
        (colours["ink"], "#ffffff"),
        (colours["soft"], "#ffffff"),
        (colours["mark"], colours["ground"]),
    ):
        assert (luminance(ground) + 0.05) / (luminance(ink) + 0.05) >= 4.5


def test_it_prints_on_two_sheets(output: Path, page: str, tmp_path: Path) -> None:
    with chromium() as browser:
        browser.goto(output.with_name("page.html").as_uri())
        pdf = browser.pdf(path=str(tmp_path / "page.pdf"), prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 2


def test_the_commands_write_it(small_slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    slide = tmp_path / "case.tiff"
    write_slide(slide, stained_island(600, 700))
    runner = CliRunner()
    command = ["convert", str(slide), "--generator", "recolour", "-o", "case_ihc.ome.tiff", "--report"]
    done = runner.invoke(cli, command, catch_exceptions=False)
    assert "case_ihc.html" in done.output
    assert "SYNTHETIC" in Path("case_ihc.html").read_text()
    assert (
        runner.invoke(cli, ["report", "case_ihc.ome.tiff", "-o", "other.html"], catch_exceptions=False).exit_code == 0
    )
    assert Path("other.html").exists()
    assert open_slide(slide).levels[0].size == Size(600, 700)
