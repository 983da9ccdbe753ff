"""Where examples come from, in which order they are drawn, what is done to them, and what the check says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsi_ihc.errors import DataSetError, SettingsError
from wsi_ihc.generators.pixels import to_tensor
from wsi_ihc.measures.her2 import Her2
from wsi_ihc.pairs.cases import case_of
from wsi_ihc.pairs.images import read_image
from wsi_ihc.phantom import Look, draw_field
from wsi_ihc.training.alignment import misalignment
from wsi_ihc.training.augmentation import (
    augment_pair,
    crop_pair,
    drop_hue,
    jitter_focus,
    jitter_stain,
)
from wsi_ihc.training.check import CheckReport, check_sources, look_at
from wsi_ihc.training.config import TrainingSettings
from wsi_ihc.training.data import DecodedCache, Schedule, TrainingData, centre_crop
from wsi_ihc.training.data_settings import AugmentationSettings
from wsi_ihc.training.examples import Image, RestainedExample, SlideExample
from wsi_ihc.training.glass import match_glass
from wsi_ihc.training.loading import doubts_about, load_training_settings
from wsi_ihc.training.membranes import draw_membranes
from wsi_ihc.training.nuclei import find_nuclei
from wsi_ihc.training.phantom_examples import PhantomExample
from wsi_ihc.training.restain import GLASS, restain
from wsi_ihc.training.sides import doubts_about_sides, hues_of
from wsi_ihc.training.sources import Source, data_digest, find_sources


class Drawn:
    """An example from memory."""

    score = None

    def __init__(self, name: str, he: Image, ihc: Image | None = None) -> None:
        self.name, self.pair, self.reads = name, (he, he if ihc is None else ihc), 0

    def read(self) -> tuple[Image, Image]:
        self.reads += 1
        return self.pair


def noise(seed: int, height: int = 64, width: int | None = None) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width or height, 3), np.uint8)


def write(path: Path, image: Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])
    return path


def settings_for(root: Path | None = None, **data: object) -> TrainingSettings:
    return TrainingSettings.model_validate(
        {"network": {"kind": "resnet"}, "data": {"root": root, "crop_px": 32, "validation_px": 32, **data}}
    )


def source(*sizes_and_weights: tuple[int, float]) -> list[Source]:
    return [
        Source(f"s{number}", weight, [Drawn(f"{number}/{i}", noise(i)) for i in range(size)], [])
        for number, (size, weight) in enumerate(sizes_and_weights)
    ]


# Layouts


def test_bci_layout_is_read_with_its_scores_and_without_its_test_split(tmp_path: Path) -> None:
    for side in ("HE", "IHC"):
        for index, score in enumerate(("0", "1+", "2+", "3+")):
            for split in ("train", "test"):
                write(tmp_path / side / split / f"{index:05d}_{split}_{score}.png", noise(index))
    (found,) = find_sources(settings_for(tmp_path, validation_pairs=1))
    examples = [*found.train, *found.validation]
    assert sorted(example.score or "" for example in examples) == ["0", "1+", "2+", "3+"]
    assert all(example.name.startswith("train/") for example in examples)
    assert len(found.validation) == 1


def _ab(root: Path, **counts: int) -> Source:
    for split, count in counts.items():
        for side in "AB":
            for index in range(count):
                write(root / f"{split}{side}" / f"{index}.jpg", noise(index))
    (found,) = find_sources(settings_for(root))
    return found


def test_a_validation_split_is_taken_where_another_one_judges(tmp_path: Path) -> None:
    found = _ab(tmp_path, train=3, val=2, test=1)
    assert (len(found.train), len(found.validation)) == (3, 2)


def test_a_validation_split_that_judges_is_never_touched(tmp_path: Path) -> None:
    """As in MIST, which has no test split."""
    found = _ab(tmp_path, train=8, val=2)
    assert all(example.name.startswith("train/") for example in (*found.train, *found.validation))
    assert (len(found.train), len(found.validation)) == (6, 2)


def test_whole_cases_are_held_out(tmp_path: Path) -> None:
    for side in ("HE", "IHC"):
        for case in range(6):
            for place in range(5):
                write(tmp_path / side / f"case{case}_{place * 512}_0.png", noise(case))
    (found,) = find_sources(settings_for(tmp_path, validation_pairs=10))
    held, kept = ({example.name.split("_")[0] for example in part} for part in (found.validation, found.train))
    assert held
    assert not held & kept
    assert len(found.validation) <= 7, "at most a quarter"


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("slide12_1024_2048", "slide12"),
        ("train/TCGA-A1-0001_x10_y22", "TCGA-A1-0001"),
        ("00012_train_3+", "00012_train_3+"),
        ("17", "17"),
        ("case.svs/0_512", "case.svs"),
        ("10_10358_37400", "10"),
    ],
)
def test_the_case_that_a_name_states(name: str, case: str) -> None:
    assert case_of(name) == case
    assert case_of("P7-b_tile_9", r"^(P\d+)") == "P7"


def test_side_by_side_halves(tmp_path: Path) -> None:
    he, ihc = noise(1, 40), noise(2, 40)
    for index in range(2):
        write(tmp_path / "train" / f"{index}.png", np.concatenate([he, ihc], axis=1))
    (found,) = find_sources(settings_for(tmp_path))
    seen = found.train[0].read()
    np.testing.assert_array_equal(seen[0], he)
    np.testing.assert_array_equal(seen[1], ihc)


def test_two_slides_become_windows_of_tissue_at_the_working_resolution(tmp_path: Path) -> None:
    field = draw_field(3, "3+", 512, 0.5)
    pixels = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER", "tile": (128, 128), "photometric": "rgb"}
    for side, image in zip(("HE", "IHC"), field, strict=True):
        (tmp_path / side).mkdir()
        tifffile.imwrite(tmp_path / side / "case_3+.tif", image, **pixels)
    wanted = {"layout": "slides", "window_px": 128, "min_tissue": 0.5}
    found = find_sources(settings_for(tmp_path, sources={"slides": wanted}).model_copy(update={"mpp": 0.5}))[0]
    example = found.train[0]
    assert isinstance(example, SlideExample)
    assert example.score == "3+"
    he, ihc = example.read()
    np.testing.assert_array_equal(he, field.he[example.region.slices])
    np.testing.assert_array_equal(ihc, field.ihc[example.region.slices])


def test_images_are_brought_to_the_working_resolution(tmp_path: Path) -> None:
    for side in ("HE", "IHC"):
        write(tmp_path / side / "a.png", noise(1, 64))
        write(tmp_path / side / "b.png", noise(2, 64))
    settings = settings_for(tmp_path, sources={"pairs": {"mpp": 0.25}}).model_copy(update={"mpp": 0.5})
    he, ihc = find_sources(settings)[0].train[0].read()
    assert he.shape == ihc.shape == (32, 32, 3)


def test_an_optional_source_may_be_missing_and_another_may_not(tmp_path: Path) -> None:
    write(tmp_path / "he" / "a.png", noise(1))
    sources = {"real": {"layout": "he_only", "path": "he"}, "more": {"path": "absent", "required": False}}
    assert [found.name for found in find_sources(settings_for(tmp_path, sources=sources))] == ["real"]
    with pytest.raises(DataSetError, match="absent: no such folder"):
        find_sources(settings_for(tmp_path, sources={"more": {"path": "absent"}}))
    with pytest.raises(DataSetError, match="--data DIR"):
        find_sources(settings_for(None))


def test_the_digest_follows_the_pixels(tmp_path: Path) -> None:
    for index in range(2):
        for side in ("HE", "IHC"):
            write(tmp_path / side / f"{index}.png", noise(index))
    settings = settings_for(tmp_path)
    before = data_digest(find_sources(settings))
    assert data_digest(find_sources(settings)) == before
    write(tmp_path / "HE" / "0.png", noise(99))
    assert data_digest(find_sources(settings)) != before


# The order of draws


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=3), batch=st.integers(1, 4), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=30)
def test_epochs_hold_each_source_by_weight_and_each_example_evenly(sizes: list[int], batch: int, seed: int) -> None:
    weights = [float(number + 1) for number in range(len(sizes))]
    epoch_pairs = 5 * sum(sizes) * batch
    schedule = Schedule(source(*zip(sizes, weights, strict=True)), seed=seed, batch=batch, epoch_pairs=epoch_pairs)
    assert schedule.steps_per_epoch * batch == epoch_pairs
    drawn = Counter(index for step in range(schedule.steps_per_epoch) for index in schedule.batch(step))
    first = 0
    for size, weight in zip(sizes, weights, strict=True):
        counts = [drawn[first + place] for place in range(size)]
        assert max(counts) - min(counts) <= 1
        assert abs(sum(counts) - weight / sum(weights) * epoch_pairs) <= 1
        first += size


def test_one_source_is_seen_once_an_epoch_in_another_order_each_time() -> None:
    schedule = Schedule(source((12, 1)), seed=1, batch=4)
    epochs = [[i for step in range(3) for i in schedule.batch(3 * epoch + step)] for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(12))
    assert epochs[0] != epochs[1]


def test_a_short_last_batch_is_dropped_and_too_few_pairs_are_refused() -> None:
    assert Schedule(source((7, 1)), seed=0, batch=3).steps_per_epoch == 2
    with pytest.raises(DataSetError, match="do not fill one batch of 8"):
        Schedule(source((7, 1)), seed=0, batch=8)


def test_batches_do_not_depend_on_where_one_starts() -> None:
    settings = settings_for(batch_size=2, workers=2).model_copy(
        update={"augmentation": AugmentationSettings(zoom=0.2, stain=0.2, light=0.1)}
    )
    sources = source((5, 1), (3, 2))
    whole = list(TrainingData(settings, sources).batches(0, 9))
    later = list(TrainingData(settings, sources).batches(6, 9))
    for one, other in zip(whole[6:], later, strict=True):
        assert torch.equal(one.he, other.he)
        assert torch.equal(one.ihc, other.ihc)
    assert whole[0].he.shape == (2, 3, 32, 32)
    assert -1 <= float(whole[0].he.min()) < float(whole[0].he.max()) <= 1


def test_ranks_share_the_batch_of_one_process() -> None:
    sources = source((16, 1))
    alone = TrainingData(settings_for(batch_size=4), sources)
    shares = [TrainingData(settings_for(batch_size=2), sources, rank=rank, ranks=2) for rank in range(2)]
    for batch, *parts in zip(*(data.batches(0, 4) for data in (alone, *shares)), strict=True):
        assert torch.equal(batch.he, torch.cat([part.he for part in parts]))


def test_an_unreadable_pair_stops_the_stream_with_its_name(tmp_path: Path) -> None:
    broken = write(tmp_path / "a.png", noise(1))
    broken.write_bytes(broken.read_bytes()[:200])
    example = RestainedExample("a", broken, 0.5)
    data = TrainingData(settings_for(batch_size=1), [Source("s", 1, [example], [])])
    with pytest.raises(DataSetError, match=r"a\.png"):
        list(data.batches(0, 1))


def test_the_cache_keeps_what_fits_and_no_more() -> None:
    examples = [Drawn(str(index), np.zeros((512, 512, 3), np.uint8)) for index in range(3)]
    cache = DecodedCache(examples, limit_mb=3)
    for _ in range(2):
        for index in range(3):
            cache.read(index)
    assert [example.reads for example in examples] == [1, 1, 2]


# Augmentation


@given(seed=st.integers(0, 999), zoom=st.sampled_from([0.0, 0.3]))
@settings(deadline=None, max_examples=30)
def test_both_sides_are_cropped_and_turned_alike(seed: int, zoom: float) -> None:
    image = noise(seed, 50, 70)
    random = np.random.default_rng(seed)
    he, ihc = augment_pair(*crop_pair(image, image, 32, zoom, random), AugmentationSettings(), random)
    assert he.shape == (32, 32, 3)
    np.testing.assert_array_equal(he, ihc)


def test_tint_changes_hues_and_leaves_glass_alone() -> None:
    he = np.full((32, 32, 3), 255, np.uint8)
    he[:16] = (150, 80, 160)
    seen = [jitter_stain(he, 0.0, 0.0, np.random.default_rng(seed), tint=0.3) for seed in range(8)]
    assert all((image[16:] == 255).all() for image in seen)
    density = np.log(256 / (1.0 + np.stack([image[0, 0] for image in seen])))
    factors = density / np.log(256 / (1.0 + he[0, 0]))
    assert (np.abs(factors - 1) < 0.33).all()
    assert np.ptp(factors, axis=1).max() > 0.1


def test_without_hue_dark_stays_dark_and_glass_stays_glass() -> None:
    he = np.full((8, 8, 3), 255, np.uint8)
    he[:3], he[3:6] = (150, 80, 160), (230, 150, 200)
    spread = []
    for seed in range(20):
        seen = drop_hue(he, np.random.default_rng(seed)).astype(float)
        assert (seen[6:] == 255).all()
        assert seen[0].mean() < seen[4].mean() < 255
        dark, light = (np.log(256 / (1 + seen[row, 0])) for row in (0, 4))
        spread.append(float(np.std(dark / light)))
    assert min(spread) < 0.1 < max(spread)


def test_focus_blurs_some_crops_sharpens_others_and_leaves_the_rest() -> None:
    he = cv2.GaussianBlur(noise(0, 64), (0, 0), 1.0)
    contrast = [float(jitter_focus(he, 1.0, np.random.default_rng(seed)).std() / he.std()) for seed in range(30)]
    assert sum(value < 0.98 for value in contrast) >= 4
    assert sum(value > 1.02 for value in contrast) >= 4
    assert sum(value == 1 for value in contrast) >= 4
    flat = np.full((32, 32, 3), 200, np.uint8)
    assert all((jitter_focus(flat, 2.0, np.random.default_rng(seed)) == 200).all() for seed in range(6))


def test_stain_and_light_change_the_he_alone_and_glass_stays_glass() -> None:
    field = draw_field(1, "2+", 64, 0.5)
    settings = AugmentationSettings(flip=False, turn=False, stain=0.3, light=0.1)
    he, ihc = augment_pair(field.he, field.ihc, settings, np.random.default_rng(0))
    np.testing.assert_array_equal(ihc, field.ihc)
    assert np.abs(he.astype(int) - field.he).mean() > 2
    white = np.full((4, 4, 3), 255, np.uint8)
    assert jitter_stain(white, 0.5, 0.0, np.random.default_rng(0)).min() >= 254
    unchanged = jitter_stain(field.he, 0.0, 0.0, np.random.default_rng(0))
    assert np.abs(unchanged.astype(int) - field.he).max() <= 1


@given(lamp=st.tuples(*[st.integers(229, 252)] * 3), seed=st.integers(0, 20))
@settings(deadline=None, max_examples=15)
def test_glass_is_matched_and_stain_keeps_its_density(lamp: tuple[int, int, int], seed: int) -> None:
    density = np.zeros((64, 64, 1))
    density[:32] = np.random.default_rng(seed).uniform(0.2, 1, (32, 64, 1))
    image = (np.array(lamp) * np.exp(-density)).round().astype(np.uint8)
    matched = match_glass(image)
    assert np.abs(matched[40:].astype(int) - GLASS).max() <= 1
    seen = -np.log(matched[:32] / GLASS)
    np.testing.assert_allclose(seen, np.broadcast_to(density[:32], seen.shape), atol=0.02)
    np.testing.assert_array_equal(match_glass(image[:30]), image[:30])  # no glass: unchanged


def test_brightness_of_the_stain_is_refused_with_what_replaces_it() -> None:
    for gone in ("he", "mean"):
        with pytest.raises(SettingsError, match="'glass' matches the bare glass") as error:
            load_training_settings(None, assignments=(f"augmentation.brightness={gone}",))
        assert "\n" not in str(error.value)
    data = TrainingData(
        settings_for(batch_size=1).model_copy(update={"augmentation": AugmentationSettings(brightness="glass")}),
        [Source("s", 1, [Drawn("a", noise(1), np.full((64, 64, 3), 230, np.uint8))], [])],
    )
    (batch,) = data.batches(0, 1)
    assert float(batch.ihc.mean()) == pytest.approx(GLASS / 127.5 - 1, abs=0.01)


def test_validation_sees_the_centre_unchanged() -> None:
    image = noise(1, 40, 100)
    assert centre_crop(image, 32, 4).shape == (32, 32, 3)
    np.testing.assert_array_equal(centre_crop(image, 64, 16), image[4:36, 18:82])
    data = TrainingData(settings_for(), [Source("s", 1, [Drawn("b", image)] * 2, [Drawn("a", image)])])
    (batch,) = data.validation()
    assert batch.he.shape == (1, 3, 32, 32)
    torch.testing.assert_close(batch.he, to_tensor(torch.from_numpy(image[4:36, 34:66])[None]))


def test_glass_is_equally_white_in_every_drawn_target() -> None:
    for seed in (0, 1, 3):
        he, ihc = PhantomExample("a", "0", seed, 256, 0.5).read()
        lamps = [np.percentile(cv2.blur(image, (5, 5)).reshape(-1, 3), 99.5, axis=0) for image in (he, ihc)]
        assert lamps[1] == pytest.approx([250] * 3, abs=4)
    assert lamps[0].min() < 240, "the H&E keeps the colour of its own lamp"


def test_ink_lies_over_the_h_and_e_alone() -> None:
    he, ihc = np.full((64, 64, 3), 230, np.uint8), np.full((64, 64, 3), 200, np.uint8)
    settings = AugmentationSettings(flip=False, turn=False, ink=1)
    covers = []
    for seed in range(24):
        inked, target = augment_pair(he, ihc, settings, np.random.default_rng(seed))
        assert (target == ihc).all()
        assert (inked <= he).all(), "ink takes light, and gives none"
        covers.append(float((inked < he - 8).any(axis=2).mean()))
    assert 0 <= min(covers) < 0.4 < 0.95 < max(covers), "edges of strokes, and their middles"
    without, _ = augment_pair(he, ihc, AugmentationSettings(flip=False, turn=False), np.random.default_rng(0))
    assert (without == he).all()


# Restained H&E


def cytoplasm(nuclear: NDArray[np.float32]) -> NDArray[np.float32]:
    """Eosin wherever a cell is."""
    return np.full_like(nuclear, 0.3)


def turned(image: NDArray[np.float32], angle: float) -> NDArray[np.float32]:
    side = len(image)
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), angle, 1)
    rotated = cv2.warpAffine(image, turn, (side, side), borderMode=cv2.BORDER_REFLECT)
    return np.asarray(rotated, np.float32)


def nest(side: int = 96, pitch: int = 20, radius: int = 6) -> NDArray[np.float32]:
    """Haematoxylin of round nuclei, 6.5 um across and 10 um apart at 0.5 um/px."""
    drawn = np.full((side, side), 0.1, np.float32)
    for y in range(pitch // 2, side, pitch):
        for x in range(pitch // 2, side, pitch):
            cv2.circle(drawn, (x, y), radius, 0.8, -1)
    return drawn


def test_cells_of_a_nest_get_membranes_between_their_nuclei() -> None:
    nuclear = nest()
    nuclei = find_nuclei(nuclear, cytoplasm(nuclear), 0.5)
    assert nuclei.labels.max() == len(nuclei.epithelial) - 1
    assert len(np.unique(nuclei.labels)) - 1 == 25
    membranes = draw_membranes(nuclei, nuclear + 0.3, 0.5)
    assert membranes.lines[20:80, 39:41].max(axis=1).min() > 0.5, "closed along the row of cells"
    assert membranes.lines[nuclear > 0.5].max() < 0.1, "none in a nucleus"
    profile = membranes.lines[50, 34:46]
    assert 2 <= int((profile > profile.max() / 2).sum()) <= 3, "about 1.3 um wide"
    assert membranes.inside[nuclear > 0.5].min() > 0.8
    on_glass = draw_membranes(nuclei, np.zeros_like(nuclear), 0.5)
    assert not on_glass.lines.any()
    assert not on_glass.inside.any()


def test_membranes_have_no_favourite_direction() -> None:
    """Borders between pixels run along rows and columns, or along diagonals; drawn ones run as the cells lie."""
    brown = []
    for angle in (0, 30, 45, 60):
        nuclear = turned(nest(192), angle)
        membranes = draw_membranes(find_nuclei(nuclear, cytoplasm(nuclear), 0.5), nuclear + 0.5, 0.5)
        brown.append(float(membranes.lines[48:144, 48:144].mean()))
    assert max(brown) < 1.06 * min(brown), "as much brown however the nest is turned"


def test_touching_nuclei_are_told_apart_by_their_dark_centres() -> None:
    """A duct's nuclei stand so close that one mask covers them all."""
    nuclear = np.full((96, 96), 0.1, np.float32)
    nuclear[30:66] = 0.55
    for x in range(10, 96, 14):
        cv2.ellipse(nuclear, (x, 48), (5, 15), 0, 0, 360, 0.9, -1)
    nuclei = find_nuclei(nuclear, cytoplasm(nuclear), 0.5)
    assert len(np.unique(nuclei.labels[48, [10, 24, 38, 52, 66, 80]])) == 6


def test_keratin_is_no_epithelium() -> None:
    """Its folds are pink, or its lamellae run all one way."""
    nuclear = nest()
    assert find_nuclei(nuclear, cytoplasm(nuclear), 0.5).epithelial[1:].min() > 0.8
    pink = np.where(nuclear > 0.5, np.float32(1.2), np.float32(0.3))
    assert not find_nuclei(nuclear, pink, 0.5).epithelial.any()
    lamellae = np.full_like(nuclear, 0.1)
    for y in range(6, 96, 14):
        lamellae[y : y + 8] = 0.8
    assert find_nuclei(lamellae, cytoplasm(lamellae), 0.5).labels.any()
    assert not find_nuclei(lamellae, cytoplasm(lamellae), 0.5).epithelial.any()


@pytest.mark.parametrize("axes", [pytest.param((4, 4), id="lymphocytes"), pytest.param((10, 2), id="fibroblasts")])
def test_small_and_long_nuclei_get_no_membranes(axes: tuple[int, int]) -> None:
    nuclear = np.full((96, 96), 0.1, np.float32)
    for y in range(10, 96, 14):
        for x in range(10, 96, 24):
            cv2.ellipse(nuclear, (x, y), axes, 0, 0, 360, 0.8, -1)
    nuclei = find_nuclei(nuclear, cytoplasm(nuclear), 0.5)
    assert len(np.unique(nuclei.labels)) > 10
    assert not draw_membranes(nuclei, nuclear + 0.5, 0.5).lines.any()


def test_nothing_stained_has_no_nuclei() -> None:
    nothing = np.zeros((32, 32), np.float32)
    nuclei = find_nuclei(nothing, nothing, 0.5)
    assert not nuclei.labels.any()
    assert not draw_membranes(nuclei, nothing + 1, 0.5).lines.any()


def test_restaining_keeps_glass_white_and_paints_epithelium() -> None:
    he, _ = draw_field(5, "3+", 256, 0.5)
    plain, brown = restain(he, 0.5, brown=False).astype(int), restain(he, 0.5).astype(int)
    nuclei = he.astype(int).sum(axis=2) < np.percentile(he.astype(int).sum(axis=2), 5)
    assert (plain[..., 2] - plain[..., 0])[nuclei].mean() > 15, "nuclei are blue"
    assert ((brown[..., 0] - brown[..., 2]) > 40).mean() > 0.002, "something is brown"
    assert not ((plain[..., 0] - plain[..., 2]) > 40).any()
    glass = restain(np.full((64, 64, 3), 240, np.uint8), 0.5)
    assert glass.min() > 235


# The check


def test_the_check_names_every_kind_of_trouble(tmp_path: Path) -> None:
    he, ihc = draw_field(3, "3+", 128, 0.5)
    for name in ("good", "blank", "torn", "larger", "small"):
        write(tmp_path / "HE" / f"{name}.png", he[:16, :16] if name == "small" else he)
        write(tmp_path / "IHC" / f"{name}.png", ihc[:16, :16] if name == "small" else ihc)
    write(tmp_path / "HE" / "alone.png", he)
    write(tmp_path / "IHC" / "blank.png", np.full_like(ihc, 240))
    write(tmp_path / "IHC" / "larger.png", cv2.resize(ihc, (160, 160)))
    (tmp_path / "IHC" / "torn.png").write_bytes((tmp_path / "IHC" / "torn.png").read_bytes()[:300])
    sources, report = check_sources(find_sources(settings_for(tmp_path, validation_pairs=0)), crop_px=32)
    kinds = {Path(problem.name).stem: problem.kind for problem in report.problems}
    assert kinds == {
        "alone": "missing partner",
        "blank": "blank",
        "torn": "unreadable",
        "larger": "sizes differ",
        "small": "too small",
    }
    assert sorted(example.name for example in sources[0].train) == ["blank", "good"]
    assert any("left out" in line for line in report.lines())


def test_a_data_set_without_one_good_pair_is_refused(tmp_path: Path) -> None:
    for side, height in (("HE", 64), ("IHC", 72)):
        write(tmp_path / side / "a.png", noise(1, height, 64))
    with pytest.raises(DataSetError, match="no usable pair"):
        check_sources(find_sources(settings_for(tmp_path)), crop_px=32)


def test_alignment_of_pairs_is_told_from_that_of_strangers() -> None:
    # Without JPEG: its grid of 8 px is the same in all pictures, and correlates.
    fields = [draw_field(seed, "2+", 256, 0.5, Look(jpeg_quality=100)) for seed in (3, 5, 8)]
    for here, there in zip(fields, fields[1:] + fields[:1], strict=True):
        assert not misalignment(here.he, here.ihc).doubtful
        assert misalignment(here.he, there.ihc).doubtful
        assert look_at(Drawn("a", here.he, there.ihc), "a", 32).apart


def _checked(pairs: list[tuple[Image, Image]]) -> CheckReport:
    examples = [Drawn(str(index), he, ihc) for index, (he, ihc) in enumerate(pairs)]
    return check_sources([Source("pairs", 1, examples, [])], crop_px=32)[1]


@pytest.fixture(scope="module")
def fields() -> list[tuple[Image, Image]]:
    drawn: tuple[tuple[int, Her2], ...] = ((3, "3+"), (5, "0"), (8, "2+"), (1, "3+"))
    look = Look(jpeg_quality=100)
    return [tuple(draw_field(seed, score, 256, 0.5, look)) for seed, score in drawn]  # type: ignore[misc]


def test_a_sound_set_raises_no_doubt(fields: list[tuple[Image, Image]]) -> None:
    report = _checked(fields)
    assert report.sound, report.lines()
    assert report.compared == len(fields)


def test_swapped_sides_and_wrong_stains_are_doubted(fields: list[tuple[Image, Image]]) -> None:
    def doubt(pairs: list[tuple[Image, Image]]) -> str:
        report = _checked(pairs)
        assert not report.sound
        return " ".join(report.doubts)

    shifted = [np.roll(he, 9, axis=1) for he, _ in fields]
    assert "swapped" in doubt([(ihc, he) for he, ihc in fields])
    assert "IHC side" in doubt([(he, moved) for (he, _), moved in zip(fields, shifted, strict=True)])
    assert "H&E side is brown" in doubt([(ihc, np.roll(ihc, 9, axis=1)) for _, ihc in fields])
    assert "shades of grey" in doubt([(he.mean(axis=2, keepdims=True).repeat(3, 2).astype(np.uint8), ihc)
                                      for he, ihc in fields])  # fmt: skip
    assert "(BGR)" in doubt([(np.ascontiguousarray(he[..., ::-1]), ihc) for he, ihc in fields])
    assert "is black" in doubt([(255 - he, ihc) for he, ihc in fields])
    strangers = [(he, fields[(index + 1) % len(fields)][1]) for index, (he, _) in enumerate(fields)]
    assert "do not seem to show the same tissue" in doubt(strangers)


def test_one_image_on_both_sides_is_left_out(fields: list[tuple[Image, Image]]) -> None:
    he, _ = fields[0]
    report = _checked([*fields, (he, he.copy())])
    assert [problem.kind for problem in report.problems] == ["same image"]


def test_single_doubts_of_alignment_are_a_rate_and_no_alarm(fields: list[tuple[Image, Image]]) -> None:
    report = _checked([*fields, (fields[0][0], fields[2][1])])
    assert report.sound
    assert report.apart == ("pairs/4",)
    assert any("1 of 5 pairs (20%) seem apart" in line for line in report.lines())


@pytest.mark.data
def test_sides_of_real_images(shared_data: Path) -> None:
    """No H&E of the test data is taken for another stain, real IHC is told from H&E."""
    tiles = shared_data / "tiles"
    he = [hues_of(read_image(file)) for folder in ("he_torchstain", "he_stamp", "he_gigapath", "he_stardist")
          for file in sorted((tiles / folder).rglob("*")) if file.suffix in (".png", ".jpg", ".tif")]  # fmt: skip
    ihc = [hues_of(read_image(file)) for folder in ("ihc_skimage", "dab_ihc_meklon")
           for file in sorted((tiles / folder).iterdir()) if file.suffix in (".png", ".jpg")]  # fmt: skip
    assert len(he) >= 4
    assert not list(doubts_about_sides(he, ihc))
    assert "swapped" in next(doubts_about_sides(ihc, he))


@pytest.mark.parametrize("shift", [(12, -20), (0, 15)])
def test_a_shift_within_what_consecutive_sections_have_is_measured(shift: tuple[int, int]) -> None:
    he, ihc = draw_field(5, "2+", 384, 0.5)
    down, right = shift
    window = slice(32, 352)
    moved = ihc[32 - down : 352 - down, 32 - right : 352 - right]
    seen = misalignment(he[window, window], moved)
    assert (seen.down, seen.right) == pytest.approx((down, right), abs=2)
    assert not seen.doubtful


# Settings


def test_impossible_settings_are_refused_in_one_line() -> None:
    def refusal(*assignments: str, ranks: int = 1) -> str:
        with pytest.raises(SettingsError) as caught:
            load_training_settings(None, assignments=assignments, ranks=ranks)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "two or more" in refusal("data.batch_size=1", "losses.variance_weight=10")
    assert "two or more" in refusal(
        "data.batch_size=1", "losses.variance_weight=10", "losses.variance_over=device", ranks=4
    )
    assert "nothing to learn" in refusal(
        "losses.adversarial_weight=0", "losses.l1_weight=0", "losses.octave_weights=[]"
    )
    assert "network.kind" in refusal("network.kind=recolour")
    assert "multiple of 256" in refusal("network.kind=unet", "data.crop_px=128", "data.validation_px=512")
    assert "unknown setting 'data.bach_size'" in refusal("data.bach_size=1")
    load_training_settings(None, assignments=("data.batch_size=1", "losses.variance_weight=10"), ranks=4)


def test_a_penalty_that_rewards_hedging_is_named_with_the_remedy_that_works() -> None:
    def doubts(*assignments: str, ranks: int = 1) -> list[str]:
        settings = load_training_settings(None, assignments=("losses.variance_weight=30", *assignments), ranks=ranks)
        return list(doubts_about(settings, ranks))

    (two,) = doubts()
    assert "whatever the share" in two
    assert "losses.variance_pool_px=32, or at least data.accumulate=8" in two
    (eight,) = doubts("data.batch_size=4", "data.accumulate=2")
    assert "in fewer than 8% of images" in eight
    assert "data.accumulate=4" in eight
    assert not doubts("losses.variance_pool_px=32")
    assert not doubts("data.accumulate=8")
    assert not doubts("data.batch_size=4", ranks=4)
    assert not doubts("losses.variance_weight=0")


@pytest.mark.parametrize("file", sorted((Path(__file__).parents[1] / "configs").glob("*.yaml")), ids=lambda f: f.stem)
def test_every_configuration_loads(file: Path) -> None:
    assert load_training_settings(file).name


def test_scores_of_drawn_fields_go_by_their_first_name_too() -> None:
    """Configurations and runs of 0.1 call them ``levels``."""
    name = "data.sources.pairs"
    settings = load_training_settings(None, assignments=(f"{name}.layout=phantom", f'{name}.levels=["3+"]'))
    assert settings.data.sources["pairs"].scores == ("3+",)


def test_the_documentation_names_every_setting() -> None:
    text = (Path(__file__).parents[1] / "docs" / "training_settings.md").read_text(encoding="utf-8")
    for section, field in TrainingSettings.model_fields.items():
        inner = getattr(field.annotation, "model_fields", {})
        for name in inner:
            assert f"`{section}.{name}" in text, f"docs/training_settings.md does not name {section}.{name}"
