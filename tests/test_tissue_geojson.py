from __future__ import annotations

import gzip
import json
import logging
import uuid
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from wsi_ihc.errors import SettingsError, StorageError
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.tissue import TissueMask, read_geojson, write_geojson
from wsi_ihc.tissue import outlines as outlines_module
from wsi_ihc.tissue.outline_scale import scale_doubt
from wsi_ihc.tissue.outlines import outlines, signed_area

SQUARE = [[[10, 20], [50, 20], [50, 60], [10, 60], [10, 20]]]
HOLE = [[20, 30], [40, 30], [40, 50], [20, 50], [20, 30]]


def read(path: Path, document: Any, side: int = 100) -> NDArray[np.bool_]:
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return read_geojson(path, size=Size(side, side), scale=1.0, downsample=1.0).pixels


def feature(geometry: dict[str, Any], classification: str | None = None) -> dict[str, Any]:
    properties = {"objectType": "annotation", "classification": {"name": classification}} if classification else {}
    return {"type": "Feature", "id": "a1", "geometry": geometry, "properties": properties}


def polygon(*rings: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


@given(
    pixels=arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))),
    factor=st.sampled_from([1.0, 3.7, 31.834460803]),
)
def test_a_round_trip_keeps_every_pixel(
    tmp_path_factory: pytest.TempPathFactory, pixels: NDArray[np.bool_], factor: float
) -> None:
    path = tmp_path_factory.mktemp("trip") / "mask.geojson"
    size = Size(*(max(1, round(side * factor)) for side in pixels.shape))
    write_geojson(TissueMask(pixels, factor, size), path, scale=2.0)
    if pixels.any():
        again = read_geojson(path, size=size, scale=2.0, downsample=factor).pixels
        assert np.array_equal(again, pixels)


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_outlines_hold_each_piece_with_its_holes(pixels: NDArray[np.bool_]) -> None:
    for outer, *holes in outlines(pixels):
        assert all(np.sign(signed_area(hole)) == -np.sign(signed_area(outer)) for hole in holes)
        assert abs(signed_area(outer)) > sum(abs(signed_area(hole)) for hole in holes)
        for ring in (outer, *holes):
            assert len({tuple(corner) for corner in ring.tolist()}) == len(ring)


def test_the_file_is_what_qupath_expects(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8), bool)
    pixels[1:6, 1:6] = True
    pixels[3, 3] = False
    write_geojson(TissueMask(pixels, 4.0, Size(32, 32)), tmp_path / "a.geojson", scale=2.0)
    write_geojson(TissueMask(pixels, 4.0, Size(32, 32)), tmp_path / "b.geojson", scale=2.0)
    document = json.loads((tmp_path / "a.geojson").read_text())
    assert document["type"] == "FeatureCollection"
    (piece,) = document["features"]
    assert uuid.UUID(piece["id"])
    assert piece["properties"]["objectType"] == "annotation"
    assert piece["properties"]["classification"]["name"] == "Tissue"
    assert piece["properties"]["metadata"] == {"slide_width": "64", "slide_height": "64"}
    assert piece["geometry"]["type"] == "Polygon"
    outer, hole = piece["geometry"]["coordinates"]
    assert outer[0] == outer[-1]
    assert min(outer)[0] == 8
    assert max(outer)[0] == 48
    assert len(hole) == 5
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()


def test_no_tissue_is_an_empty_collection(tmp_path: Path) -> None:
    write_geojson(TissueMask(np.zeros((3, 3), bool), 1.0, Size(3, 3)), tmp_path / "a.geojson", scale=1.0)
    assert json.loads((tmp_path / "a.geojson").read_text()) == {"type": "FeatureCollection", "features": []}


@pytest.mark.parametrize(
    "document",
    [
        {"type": "FeatureCollection", "features": [feature(polygon(*SQUARE))]},
        [feature(polygon(*SQUARE))],
        feature(polygon(*SQUARE)),
        polygon(*SQUARE),
        feature({"type": "MultiPolygon", "coordinates": [SQUARE]}),
        feature({"type": "GeometryCollection", "geometries": [polygon(*SQUARE)]}),
        {"type": "FeatureCollection", "features": [feature(polygon(*SQUARE)), feature(polygon(*SQUARE))]},
        feature(polygon([[x, y, 0] for x, y in SQUARE[0]])),
    ],
    ids=["collection", "bare list", "feature", "geometry", "multipolygon", "geometry collection", "overlap", "with z"],
)
def test_every_shape_that_qupath_exports_is_read(tmp_path: Path, document: Any) -> None:
    expected = np.zeros((100, 100), bool)
    expected[20:60, 10:50] = True
    assert np.array_equal(read(tmp_path / "a.geojson", document), expected)


@pytest.mark.parametrize(
    "document",
    [
        feature(polygon(SQUARE[0], HOLE)),
        [feature(polygon(*SQUARE)), feature(polygon(HOLE), "Ignore*")],
        [feature(polygon(HOLE), "exclude"), feature(polygon(*SQUARE), "Tumor")],
    ],
    ids=["hole", "ignored", "excluded"],
)
def test_holes_and_ignored_annotations_are_cut_out(tmp_path: Path, document: Any) -> None:
    pixels = read(tmp_path / "a.geojson", document)
    assert pixels.sum() == 40 * 40 - 20 * 20
    assert not pixels[30:50, 20:40].any()


@pytest.mark.parametrize(
    "classification",
    [
        {"name": "Artifact"},
        {"name": "Tumor: Ignore*"},
        {"names": ["Tumor", "Ignore*"]},
        "Ignore*",
    ],
)
def test_what_is_no_tissue_is_cut_out_in_every_spelling(tmp_path: Path, classification: Any) -> None:
    hole = {"type": "Feature", "geometry": polygon(HOLE), "properties": {"classification": classification}}
    assert read(tmp_path / "a.geojson", [feature(polygon(*SQUARE)), hole]).sum() == 40 * 40 - 20 * 20


def test_missing_cores_and_empty_objects_are_skipped_with_a_notice(tmp_path: Path) -> None:
    core = {"type": "Feature", "geometry": polygon(HOLE), "properties": {"objectType": "tma_core", "isMissing": True}}
    here = {"type": "Feature", "geometry": polygon(*SQUARE), "properties": {"isMissing": False}}
    far = {**core, "geometry": polygon([[70, 70], [90, 70], [90, 90]])}
    (tmp_path / "a.geojson").write_text(json.dumps([core, far, here, feature(None)]))  # type: ignore[arg-type]
    mask = read_geojson(tmp_path / "a.geojson", size=Size(100, 100), scale=1.0, downsample=1.0)
    assert mask.pixels.sum() == 1600
    assert mask.notices == (
        "a.geojson: 1 objects without a geometry were skipped",
        "a.geojson: 2 TMA cores are marked as missing and were skipped",
    )


class TestArchives:
    TEXT = json.dumps([{"type": "Polygon", "coordinates": SQUARE}])

    def archive(self, path: Path, **members: str) -> Path:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in members.items():
                archive.writestr(name.replace("_", "."), text)
        return path

    def pixels(self, path: Path) -> int:
        return int(read_geojson(path, size=Size(100, 100), scale=1.0, downsample=1.0).pixels.sum())

    def test_zip_and_gz(self, tmp_path: Path) -> None:
        assert self.pixels(self.archive(tmp_path / "a.zip", a_geojson=self.TEXT, readme_txt="x")) == 1600
        (tmp_path / "a.geojson.gz").write_bytes(gzip.compress(self.TEXT.encode()))
        assert self.pixels(tmp_path / "a.geojson.gz") == 1600

    def test_which_of_several_is_not_guessed(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="2 GeoJSON files"):
            self.pixels(self.archive(tmp_path / "a.zip", a_geojson=self.TEXT, b_json=self.TEXT))

    def test_a_bomb_is_refused(self, tmp_path: Path) -> None:
        bomb = self.archive(tmp_path / "a.zip", a_json=" " * 70_000_000)
        with pytest.raises(SettingsError, match="more than 64 MB"):
            self.pixels(bomb)

    @pytest.mark.parametrize("name", ["a.zip", "a.gz"])
    def test_a_damaged_one_is_one_line(self, tmp_path: Path, name: str) -> None:
        data = gzip.compress(self.TEXT.encode() * 50)
        if name == "a.zip":
            data = self.archive(tmp_path / name, a_json=self.TEXT * 50).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(SettingsError, match=name) as caught:
            self.pixels(tmp_path / name)
        assert "\n" not in str(caught.value)


class TestBounds:
    def test_more_polygons_than_tissue_has(self, tmp_path: Path) -> None:
        shapes = {"type": "MultiPolygon", "coordinates": [[[[1, 1], [2, 1], [2, 2]]]] * 60_000}
        with pytest.raises(SettingsError, match="not cells"):
            read(tmp_path / "a.geojson", shapes)

    def test_a_ring_that_crosses_the_slide_too_often(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(outlines_module, "MOST_CROSSINGS", 5_000)
        comb = [[x / 10, 90 * (x % 2)] for x in range(900)]
        with pytest.raises(SettingsError, match="900 corners crosses the picture"):
            read(tmp_path / "a.geojson", polygon(comb))

    def test_a_ring_filled_in_parts_is_the_same(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        random = np.random.default_rng(4)
        ring = polygon(random.integers(0, 100, (60, 2)).tolist())
        at_once = read(tmp_path / "a.geojson", ring)
        for part in (1, 7, 100):
            monkeypatch.setattr(outlines_module, "PART", part)
            assert np.array_equal(read(tmp_path / "a.geojson", ring), at_once)


class TestScale:
    @pytest.fixture
    def tissue(self) -> NDArray[np.bool_]:
        pixels = np.zeros((160, 200), bool)
        pixels[80:140, 100:180] = True
        return pixels

    def test_outlines_of_the_tissue_are_believed(self, tissue: NDArray[np.bool_]) -> None:
        assert scale_doubt(tissue, tissue, 0.25) is None
        assert scale_doubt(tissue[::2, ::2], tissue, 0.25) is None

    @pytest.mark.parametrize(("factor", "said"), [(2, "export 2 times smaller"), (4, "4 times as large")])
    def test_a_smaller_export_is_seen(self, tissue: NDArray[np.bool_], factor: int, said: str) -> None:
        drawn = np.zeros_like(tissue)
        drawn[: 160 // factor, : 200 // factor] = tissue[::factor, ::factor]
        assert said in str(scale_doubt(drawn, tissue, None))

    def test_micrometres_are_seen(self, tissue: NDArray[np.bool_]) -> None:
        drawn = np.zeros_like(tissue)
        drawn[40:70, 50:90] = True
        assert "or are they in um" in str(scale_doubt(drawn, tissue, 0.5001))
        drawn[:] = False
        drawn[32:56, 40:72] = True
        assert "coordinates in um" in str(scale_doubt(drawn, tissue, 0.4))

    def test_outlines_of_glass_are_told(self, tissue: NDArray[np.bool_]) -> None:
        assert "only 0%" in str(scale_doubt(~tissue, tissue, 0.25))


def test_points_and_lines_are_skipped_with_a_notice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    point, line = {"type": "Point", "coordinates": [1, 2]}, {"type": "LineString", "coordinates": [[1, 2], [3, 4]]}
    with caplog.at_level(logging.WARNING):
        pixels = read(tmp_path / "a.geojson", [feature(point), feature(line), feature(polygon(*SQUARE))])
    assert pixels.sum() == 1600
    assert "2 points or lines" in caplog.text


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("no json", "not GeoJSON"),
        ("[" * 100_000, "not GeoJSON"),
        ({"a": 1}, "not GeoJSON"),
        ([], "no polygons"),
        (3, "not GeoJSON"),
        ([{"type": "Feature", "geometry": None}], "no polygons"),
        ([{"type": "Feature", "geometry": {"type": "Circle"}}], "without a geometry"),
        (feature(polygon([[1, 2], [10**400, 4], [5, 6]])), "pairs of numbers"),
        ('[{"type": "Polygon", "coordinates": [[[1, 2], [1e400, 4], [5, 6]]]}]', "pairs of numbers"),
        ([feature({"type": "Point", "coordinates": [1, 2]})], "no polygons"),
        (feature(polygon([[1, 2], ["a", 4], [5, 6]])), "pairs of numbers"),
        (feature(polygon([[1, 2], [3, 4]])), "pairs of numbers"),
        (feature(polygon([[1, 2], [3], [5, 6]])), "pairs of numbers"),
        (feature({"type": "Polygon", "coordinates": [[]]}), "pairs of numbers"),
        (feature({"type": "MultiPolygon", "coordinates": [3]}), "pairs of numbers"),
        (feature(polygon([[1, 2], [float("nan"), 4], [5, 6]])), "pairs of numbers"),
        (feature(polygon([[0, 0], [900, 0], [900, 900]])), "outside the slide of 100 x 100"),
        (feature(polygon([[-50, 0], [90, 0], [90, 90]])), "outside the slide"),
    ],
)
def test_anything_else_is_one_clear_line(tmp_path: Path, document: Any, says: str) -> None:
    with pytest.raises(SettingsError, match=says) as caught:
        read(tmp_path / "edited.geojson", document)
    assert "edited.geojson" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing\.geojson: cannot read"):
        read_geojson(tmp_path / "missing.geojson", size=Size(9, 9), scale=1.0, downsample=1.0)


def test_a_folder_that_is_not_there_is_made_and_one_that_cannot_be_is_one_clear_line(tmp_path: Path) -> None:
    mask = TissueMask(np.ones((1, 1), bool), 1.0, Size(1, 1))
    write_geojson(mask, tmp_path / "no" / "a.geojson", scale=1.0)
    assert [file.name for file in (tmp_path / "no").iterdir()] == ["a.geojson"]
    with pytest.raises(StorageError, match=r"b\.geojson: cannot be written"):
        write_geojson(mask, tmp_path / "no" / "a.geojson" / "b.geojson", scale=1.0)


def test_outlines_of_another_slide_are_refused(tmp_path: Path) -> None:
    """Also where they lie inside this one: they carry the size of the slide that they were made for."""
    write_geojson(TissueMask(np.ones((8, 8), bool), 4.0, Size(32, 32)), tmp_path / "a.geojson", scale=2.0)
    with pytest.raises(SettingsError, match="made for a slide of 64 x 64 pixels, this one has 100 x 64"):
        read_geojson(tmp_path / "a.geojson", size=Size(32, 50), scale=2.0, downsample=4.0)
    same = read_geojson(tmp_path / "a.geojson", size=Size(64, 64), scale=1.0, downsample=4.0)
    assert same.pixels.mean() > 0.9


@pytest.mark.parametrize("excluded", [True, False])
def test_polygons_without_a_pixel_are_one_clear_line(tmp_path: Path, excluded: bool) -> None:
    whole, speck = polygon([[0, 0], [40, 0], [40, 40], [0, 40]]), polygon([[1, 1], [1.2, 1], [1.2, 1.2]])
    features = [feature(whole), feature(whole, "Ignore*")] if excluded else [feature(speck)]
    with pytest.raises(SettingsError, match="too small, or all cut out"):
        read(tmp_path / "edited.geojson", {"type": "FeatureCollection", "features": features})
