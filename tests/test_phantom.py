"""The phantom: a function of the place alone, true to the HER2 score, and readable by everyone."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest
import tifffile
import tiffslide
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsi_ihc.cli import main
from wsi_ihc.cli.phantom import phantom
from wsi_ihc.errors import OutputError, SettingsError
from wsi_ihc.phantom import HER2_SCORES, Field, Look, draw_field, draw_pairs, draw_phantom, pyramid
from wsi_ihc.phantom.cells import TUMOUR, place_cells
from wsi_ihc.phantom.field import BLOCK_PX, draw_block
from wsi_ihc.phantom.noise import Grid, smooth, uniform
from wsi_ihc.phantom.painting import paint
from wsi_ihc.phantom.patches import Canvas
from wsi_ihc.phantom.section import Section, slide_lobes
from wsi_ihc.pyramid.geometry import Region, Size

EXACT = Look(jpeg_quality=100)
SEED = 3


@pytest.fixture(scope="module")
def plane() -> Field:
    """A square of four blocks around the plane's zero, without JPEG."""
    return draw_field(SEED, "3+", 2 * BLOCK_PX, look=EXACT, origin=(-BLOCK_PX, -BLOCK_PX))


@settings(max_examples=4, deadline=None)
@given(top=st.integers(-400, 300), left=st.integers(-400, 300))
def test_a_window_is_the_crop_of_a_larger_one(plane: Field, top: int, left: int) -> None:
    window = draw_field(SEED, "3+", 100, look=EXACT, origin=(top, left))
    rows, columns = slice(top + BLOCK_PX, top + BLOCK_PX + 100), slice(left + BLOCK_PX, left + BLOCK_PX + 100)
    for drawn, whole in zip(window, plane, strict=True):
        np.testing.assert_array_equal(drawn, whole[rows, columns])


def test_blocks_meet_without_a_seam(plane: Field) -> None:
    """The same place drawn as the middle of another block: what the fixed grid of blocks would otherwise hide."""
    across = draw_block(Section(SEED, "3+"), Region(-256, -256, BLOCK_PX, BLOCK_PX), 0.5, EXACT)
    for drawn, whole in zip(across, plane, strict=True):
        assert cv2.absdiff(drawn, whole[256:-256, 256:-256]).max() <= 3


def test_another_seed_is_another_tumour(plane: Field) -> None:
    other = draw_field(SEED + 1, "3+", BLOCK_PX, look=EXACT)
    assert cv2.absdiff(other.he, plane.he[BLOCK_PX:, BLOCK_PX:]).mean() > 10


def dab(her2: str, seed: int = SEED) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """DAB and nuclear haematoxylin of a field."""
    stains = paint(Section(seed, her2), Canvas(0, 0, BLOCK_PX, BLOCK_PX, 0.5))
    return stains.dab, stains.haematoxylin


def test_scores_stain_in_their_order() -> None:
    strongest = [np.quantile(dab(score)[0], 0.99) for score in HER2_SCORES]
    assert strongest[0] < 0.1
    assert all(weak * 1.5 < strong for weak, strong in itertools.pairwise(strongest))


def test_only_tumour_takes_the_stain() -> None:
    """Where no tumour cell is within a cell's reach there is no DAB."""
    section, canvas = Section(SEED, "3+"), Canvas(0, 0, BLOCK_PX, BLOCK_PX, 0.5)
    stains = paint(section, canvas)
    tumour = tumour_cells(section)
    free = np.full((BLOCK_PX, BLOCK_PX), 255, np.uint8)
    for y, x in zip(tumour.y, tumour.x, strict=True):
        cv2.circle(free, (round(float(x) / 0.5), round(float(y) / 0.5)), 30, 0, -1)
    assert 0.05 < (free > 0).mean() < 0.95
    assert stains.dab[free > 0].max() < 0.05
    assert stains.dab.max() > 0.8


def tumour_cells(section: Section):  # type: ignore[no-untyped-def]
    from wsi_ihc.phantom.architecture import draw_maps

    margin = 40
    maps = draw_maps(section, Grid(1.0 - 2 * margin, 1.0 - 2 * margin, 2.0, 128 + 2 * margin, 128 + 2 * margin))
    return place_cells(section, maps, Grid(-15, -15, 0.5, 572, 572)).of(TUMOUR)


def test_h_and_e_tells_something_of_the_score() -> None:
    """Tumour cells grow, and eosin deepens, from 0 to 3+: the same seed draws the same architecture."""
    negative, positive = (tumour_cells(Section(SEED, score)) for score in ("0", "3+"))
    assert len(negative) > 100
    assert np.median(positive.radius) > 1.05 * np.median(negative.radius)
    assert np.std(positive.radius) > np.std(negative.radius)


def test_cells_keep_their_distance() -> None:
    cells = tumour_cells(Section(SEED, "2+"))
    apart = np.hypot(cells.y[:, None] - cells.y, cells.x[:, None] - cells.x) + 1e3 * np.eye(len(cells))
    assert (apart >= cells.radius[:, None] + cells.radius - 1e-3).all()


@settings(max_examples=30, deadline=None)
@given(row=st.integers(-(10**6), 10**6), column=st.integers(-(10**6), 10**6))
def test_noise_belongs_to_the_place(row: int, column: int) -> None:
    whole = uniform(1, 2, np.arange(row, row + 6)[:, None], np.arange(column, column + 6)[None, :])
    part = uniform(1, 2, np.array([[row + 4]]), np.array([[column + 5]]))
    assert whole[4, 5] == part[0, 0]
    assert 0 <= whole.min() <= whole.max() < 1


def test_smooth_noise_has_unit_variance_and_is_continuous() -> None:
    field = smooth(5, 6, Grid(-300.0, 1e5, 1.0, 600, 600), 10.0)
    assert abs(field.mean()) < 0.1
    assert 0.85 < field.std() < 1.15
    assert np.abs(np.diff(field, axis=0)).max() < 0.5


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_glass_is_declared_only_where_no_tissue_is(seed: int) -> None:
    section = Section(seed, "0", slide_lobes(seed, 3000, 3000, 0.1))
    for left in (0.0, 900.0, 2400.0):
        if section.is_glass(Grid(left, left, 32.0, 9, 9)):
            assert section.tissue_depth(Grid(left, left, 4.0, 64, 64)).max() < -2


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_looks_are_physical(seed: int) -> None:
    look = Look.random(seed)
    for vector in (look.haematoxylin, look.eosin, look.dab, look.counterstain):
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
        assert min(vector) > 0
    assert 0.8 <= look.scale <= 1.25
    assert 60 <= look.jpeg_quality <= 97


def test_slide_opens_everywhere_at_its_scale(tmp_path: Path) -> None:
    path, ihc = tmp_path / "slide.tiff", tmp_path / "ihc.tiff"
    drawn: list[int] = []
    draw_phantom(path, her2="2+", size=Size(900, 1300), mpp=0.5, seed=5, pair_path=ihc, progress=drawn.append)
    assert sum(drawn) == 900 * 1300
    assert sorted(item.name for item in tmp_path.iterdir()) == ["ihc.tiff", "slide.tiff"]
    for file in (path, ihc):
        with openslide.OpenSlide(file) as slide:
            assert slide.level_dimensions == ((1300, 900), (650, 450), (325, 225))
            assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        with tiffslide.TiffSlide(file) as slide:
            assert slide.level_dimensions == ((1300, 900), (650, 450), (325, 225))
            assert slide.properties["tiffslide.mpp-x"] == pytest.approx(0.5)
    pixels, half = (tifffile.imread(path, level=level) for level in (0, 1))
    grey, half_grey = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (pixels, half))
    assert cv2.absdiff(cv2.resize(grey, (650, 450), interpolation=cv2.INTER_AREA), half_grey).mean() < 3
    assert pixels[:40, :40].min() > 225, "glass in the corner"
    assert pixels[400:500, 600:700].std() > 15, "tissue in the middle"


def test_bytes_depend_on_the_seed_alone(tmp_path: Path) -> None:
    def bytes_of(name: str, seed: int, threads: int, pair: bool) -> bytes:
        path = tmp_path / name
        other = tmp_path / "ihc.tiff" if pair else None
        draw_phantom(path, her2="1+", size=Size(600, 700), seed=seed, threads=threads, pair_path=other)
        return path.read_bytes()

    first = bytes_of("a.tiff", 1, 1, False)
    assert first == bytes_of("b.tiff", 1, 3, True)
    assert first != bytes_of("c.tiff", 2, 1, False)


def test_memory_does_not_follow_the_slide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the drawing itself replaced: what stays in memory is the pyramid's."""
    grey = np.full((BLOCK_PX, BLOCK_PX, 3), 128, np.uint8)
    monkeypatch.setattr(pyramid, "draw_block", lambda *_, **__: Field(grey.copy(), grey.copy()))

    def peak(side: int) -> int:
        tracemalloc.start()
        draw_phantom(tmp_path / f"{side}.tiff", her2="0", size=Size(side, side), share=1.0)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1_024)  # What is made once in a process is not the slide's.
    # Sixteen times the pixels; the further levels of the pyramid keep a few tiles each.
    assert peak(16_384) < 1.6 * peak(4_096)


def test_sparse_slide_is_mostly_one_tile_of_glass(tmp_path: Path) -> None:
    path = tmp_path / "sparse.tiff"
    draw_phantom(path, her2="0", size=Size(3072, 3072), seed=1, share=0.01)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        sizes = page.tags["TileByteCounts"].value
        assert sizes.count(min(sizes)) > len(sizes) / 2
    assert path.stat().st_size < 36 * 40_000


def test_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> Field:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pyramid, "draw_block", broken)
    with pytest.raises(OSError, match="nothing was left behind"):
        draw_phantom(tmp_path / "x.tiff", her2="0", size=Size(600, 600))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": Size(0, 5)}, "size 5x0 px"),
        ({"mpp": 100.0}, "pixel size 100.0 um"),
        ({"mpp": float("nan")}, "pixel size nan"),
        ({"her2": "4+"}, "HER2 score '4\\+'"),
        ({"share": 0.0}, "share of tissue"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    arguments = {"her2": "0", "size": Size(64, 64), "mpp": 0.5, "seed": 0} | changes
    with pytest.raises(SettingsError, match=words):
        draw_phantom(tmp_path / "x.tiff", **arguments)  # type: ignore[arg-type]


def test_sample_slide_is_what_its_readme_says(tmp_path: Path) -> None:
    folder = Path(__file__).parents[1] / "sample_slides"
    sample, again = folder / "breast_phantom.tiff", tmp_path / "again.tiff"
    line = next(line for line in (folder / "README.md").read_text().splitlines() if line.startswith("wsi-ihc phantom"))
    arguments = line.replace("sample_slides/breast_phantom.tiff", str(again)).split()[2:]
    assert CliRunner().invoke(phantom, arguments, catch_exceptions=False).exit_code == 0
    # Another processor may round a pixel the other way.
    assert cv2.absdiff(tifffile.imread(sample), tifffile.imread(again)).mean() < 0.1
    assert sample.stat().st_size < 3_000_000


def test_pairs_lie_in_the_layout_of_bci(tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    left_by_a_killed_run = tmp_path / "pairs.part" / "HE" / "train" / "00009_train_0.png"
    left_by_a_killed_run.parent.mkdir(parents=True)
    left_by_a_killed_run.touch()
    draw_pairs(folder, 5, size=Size(96, 128), train_share=0.8, seed=2)
    names = {"00001_train_0.png", "00002_train_1+.png", "00003_train_2+.png", "00004_train_3+.png"}
    for stain in ("HE", "IHC"):
        assert {path.name for path in (folder / stain / "train").iterdir()} == names
        assert [path.name for path in (folder / stain / "test").iterdir()] == ["00005_test_0.png"]
    assert cv2.imread(str(folder / "HE" / "test" / "00005_test_0.png")).shape == (96, 128, 3)
    with pytest.raises(OutputError, match="is there already"):
        draw_pairs(folder, 1, size=Size(64, 64))


def test_misalignment_moves_the_ihc_only(tmp_path: Path) -> None:
    for name, shift in (("straight", 0.0), ("moved", 12.0)):
        draw_pairs(tmp_path / name, 1, size=Size(128, 128), misalign_px=shift, train_share=1)

    def read(name: str, stain: str) -> NDArray[np.uint8]:
        return np.asarray(cv2.imread(str(tmp_path / name / stain / "train" / "00001_train_0.png")), np.uint8)

    np.testing.assert_array_equal(read("straight", "HE"), read("moved", "HE"))
    assert cv2.absdiff(read("straight", "IHC"), read("moved", "IHC")).mean() > 0.5


def test_command_draws_a_slide_and_its_ihc(tmp_path: Path) -> None:
    path = tmp_path / "p.tiff"
    arguments = ["-o", str(path), "--size", "300x200", "--her2", "1+", "--pair", "--look", "4", "--sparse", "0.3"]
    result = CliRunner().invoke(phantom, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert tifffile.imread(tmp_path / "p_ihc.tiff").shape == (200, 300, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--size", "0x9"], "size 0x9 px"),
        (["--size", "big"], "--size big"),
        (["--mpp", "0"], "pixel size 0.0 um"),
        (["--pairs", "3", "--split", "1"], "--split 1"),
        (["--pairs", "0"], "0 pairs"),
        (["--look", "-1"], "seed of the look -1"),
    ],
)
def test_command_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["phantom", "-o", str(tmp_path / "x.tiff"), *arguments])
    assert stop.value.code == 2
    said = capsys.readouterr().err.strip()
    assert words in said
    assert "\n" not in said
    assert not list(tmp_path.iterdir())


def test_command_keeps_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.tiff"
    path.write_bytes(b"precious")
    with pytest.raises(SystemExit) as stop:
        main(["phantom", "-o", str(path), "--size", "64x64"])
    assert stop.value.code == 6
    assert "--overwrite" in capsys.readouterr().err
    assert path.read_bytes() == b"precious"
