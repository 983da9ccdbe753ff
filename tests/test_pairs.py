"""Pairs on disk: every layout, scores from names, and one line for everything that can be wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from wsi_ihc.errors import DataSetError
from wsi_ihc.pairs.folders import find_pairs, her2_score, image_files, pair_folders, read_image, read_pair, scan_pairs


def _save(path: Path, value: int = 100, size: tuple[int, int] = (16, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("00012_test_3+.png", "3+"),
        ("00001_train_0.png", "0"),
        ("00003_test_1+_fake_B.png", "1+"),
        ("tile_2+", "2+"),
        ("her2-0_slide5.jpg", "0"),
        ("0_2_0_2_0000_1024_fake_2.png", None),
        ("slide_0.png", None),
        ("13+7.png", None),
    ],
)
def test_level_is_read_from_names_that_state_it(name: str, score: str | None) -> None:
    assert her2_score(name) == score


def test_bci_layout_keeps_splits_apart(tmp_path: Path) -> None:
    for split, score in (("train", "0"), ("test", "2+")):
        for stain in ("HE", "IHC"):
            _save(tmp_path / stain / split / f"00001_{split}_{score}.png")
    (test,) = find_pairs(tmp_path, "test")
    assert (test.score, test.split, test.layout) == ("2+", "test", "folders")
    assert [pair.split for pair in find_pairs(tmp_path)] == ["train", "test"]


@pytest.mark.parametrize(
    ("he", "ihc", "split"),
    [
        ("he/a.jpg", "mihc/a.tif", None),
        ("test/HE/a.png", "test/IHC/a.png", "test"),
        ("testA/a.png", "testB/a.png", "test"),
    ],
)
def test_parallel_folders_under_their_usual_names(tmp_path: Path, he: str, ihc: str, split: str | None) -> None:
    _save(tmp_path / he, 10)
    _save(tmp_path / ihc, 20)
    (pair,) = find_pairs(tmp_path, split)
    assert pair.split == split
    assert [int(image.mean()) for image in read_pair(pair)] == [10, 20]


def test_two_folders_of_any_name(tmp_path: Path) -> None:
    _save(tmp_path / "slides" / "a.png")
    _save(tmp_path / "stained" / "a.png")
    assert [pair.name for pair in pair_folders(tmp_path / "slides", tmp_path / "stained").pairs] == ["a"]


def test_side_by_side_splits_in_halves(tmp_path: Path) -> None:
    both = np.zeros((8, 16, 3), np.uint8)
    both[:, 8:] = 200
    (tmp_path / "test").mkdir()
    Image.fromarray(both).save(tmp_path / "test" / "a_test_1+.png")
    (pair,) = find_pairs(tmp_path, "test")
    he, ihc = read_pair(pair)
    assert (pair.layout, pair.score, he.max(), ihc.min(), ihc.shape) == ("side_by_side", "1+", 0, 200, (8, 8, 3))


def test_a_missing_partner_is_named_or_listed(tmp_path: Path) -> None:
    _save(tmp_path / "HE" / "a.png")
    lonely = _save(tmp_path / "HE" / "b.png")
    _save(tmp_path / "IHC" / "a.png")
    with pytest.raises(DataSetError, match=r"b\.png: no partner"):
        find_pairs(tmp_path)
    assert scan_pairs(tmp_path).unpaired == (lonely,)


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match="no such folder"):
        find_pairs(tmp_path / "absent")
    with pytest.raises(DataSetError, match="no pairs"):
        find_pairs(tmp_path)
    _save(tmp_path / "HE" / "train" / "a.png")
    _save(tmp_path / "IHC" / "train" / "a.png")
    with pytest.raises(DataSetError, match="no split 'test'; it has train"):
        find_pairs(tmp_path, "test")
    _save(tmp_path / "HE" / "train" / "a.jpg")
    with pytest.raises(DataSetError, match="same name"):
        find_pairs(tmp_path)


def test_sizes_must_match(tmp_path: Path) -> None:
    _save(tmp_path / "HE" / "a.png", size=(16, 16))
    _save(tmp_path / "IHC" / "a.png", size=(16, 12))
    with pytest.raises(DataSetError, match="12 x 16 px but its H&E 16 x 16"):
        read_pair(find_pairs(tmp_path)[0])


def test_a_plain_image_is_no_side_by_side_pair(tmp_path: Path) -> None:
    _save(tmp_path / "a.png", size=(16, 16))
    with pytest.raises(DataSetError, match="twice as wide"):
        read_pair(find_pairs(tmp_path)[0])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_a_file_cut_short_is_refused_not_filled(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataSetError, match="cannot be read") as error:
        read_image(path)
    assert "\n" not in str(error.value)


def test_pixels_come_as_rgb_bytes(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4, 4), 7, np.uint8)).save(tmp_path / "alpha.png")
    Image.fromarray(np.full((4, 4), 9, np.uint8)).save(tmp_path / "grey.png")
    tifffile.imwrite(tmp_path / "four.tif", np.full((4, 4, 4), 5, np.uint8), photometric="separated")
    values = {path.stem: read_image(path) for path in image_files(tmp_path)}
    assert {name: (image.shape, int(image[0, 0, 0])) for name, image in values.items()} == {
        "alpha": ((4, 4, 3), 7),
        "four": ((4, 4, 3), 5),
        "grey": ((4, 4, 3), 9),
    }
    tifffile.imwrite(tmp_path / "deep.tif", np.zeros((4, 4, 3), np.uint16))
    with pytest.raises(DataSetError, match="expected 8-bit RGB"):
        read_image(tmp_path / "deep.tif")


@pytest.mark.data
def test_real_pairs(shared_data: Path) -> None:
    pairs = find_pairs(shared_data / "pairs" / "he_mihc_hemit")
    assert len(pairs) == 12
    assert all(image.shape == (512, 512, 3) for image in read_pair(pairs[0]))
