"""Pairs on disk: every layout, scores from names, and one line for everything that can be wrong."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from wsi_ihc.errors import DataSetError
from wsi_ihc.pairs.folders import find_pairs, her2_score, pair_folders, read_pair, scan_pairs
from wsi_ihc.pairs.images import read_image


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
        ("slide12_level_0_tile_4_7.png", None),
        ("ihc_0.png", None),
        ("train_0.png", None),
        ("score_0_a.png", "0"),
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


COLOURS = np.random.default_rng(1).integers(0, 256, (8, 12, 3), dtype=np.uint8)


def _read(path: Path, pixels: np.ndarray, **options: object) -> np.ndarray:
    tifffile.imwrite(path, pixels, **options)
    return read_image(path)


def test_forms_of_tiff_read_in_their_own_colours(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    np.testing.assert_array_equal(_read(path, COLOURS, photometric="rgb"), COLOURS)
    planes = np.ascontiguousarray(np.moveaxis(COLOURS, -1, 0))
    np.testing.assert_array_equal(_read(path, planes, photometric="rgb", planarconfig="separate"), COLOURS)
    grey = COLOURS[..., 0]
    np.testing.assert_array_equal(_read(path, grey, photometric="minisblack")[..., 1], grey)
    np.testing.assert_array_equal(_read(path, grey, photometric="miniswhite")[..., 2], 255 - grey)
    indexed = Image.fromarray(COLOURS).quantize(16)
    indexed.save(path)
    np.testing.assert_array_equal(read_image(path), np.array(indexed.convert("RGB")))


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_transparency_is_seen_on_white(tmp_path: Path, suffix: str) -> None:
    rgba = np.dstack([COLOURS, np.full((8, 12), 255, np.uint8)])
    rgba[:4, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / f"a{suffix}")
    seen = read_image(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(seen[4:], COLOURS[4:])
    assert (seen[:4] == 255).all()


def test_inks_take_light_away(tmp_path: Path) -> None:
    """CMYK: no ink is white, black ink darkens all. HEMIT's multiplex images are kept so."""
    plain = Image.fromarray(COLOURS).convert("CMYK")
    for name in ("a.tif", "a.jpg"):
        plain.save(tmp_path / name, **({"quality": 100, "subsampling": 0} if name.endswith("jpg") else {}))
        seen = read_image(tmp_path / name).astype(int)
        assert np.abs(seen - COLOURS).max() <= (12 if name.endswith("jpg") else 1)
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255], [0, 0, 128, 0]]], np.uint8)
    seen = _read(tmp_path / "b.tif", inks, photometric="separated")
    assert seen[0].tolist() == [[255, 255, 255], [0, 255, 255], [0, 0, 0], [255, 255, 127]]


@pytest.mark.parametrize("mode", ["LAB", "YCbCr", "I;16", "F"])
def test_colours_that_are_no_rgb_are_refused_in_one_line(tmp_path: Path, mode: str) -> None:
    plain = Image.fromarray(COLOURS)
    grey = {"I;16": np.uint16, "F": np.float32}.get(mode)
    image = Image.fromarray(COLOURS[..., 0].astype(grey)) if grey else None
    if mode == "LAB":
        image = Image.fromarray(COLOURS, "LAB")
    (image or plain.convert(mode)).save(tmp_path / "a.tif")
    with pytest.raises(DataSetError, match=r"a\.tif: .*expected 8-bit RGB") as error:
        read_image(tmp_path / "a.tif")
    assert "\n" not in str(error.value)


def test_more_than_eight_bits_are_refused_not_shortened(tmp_path: Path) -> None:
    twelve = COLOURS.astype(np.uint16) * 16
    tifffile.imwrite(tmp_path / "deep.tif", twelve, photometric="rgb")
    cv2.imwrite(str(tmp_path / "deep.png"), twelve)
    for name in ("deep.tif", "deep.png"):
        with pytest.raises(DataSetError, match="16 bits"):
            read_image(tmp_path / name)


@pytest.mark.parametrize("side", [9_000, 12_000, 40_000])
@pytest.mark.parametrize("suffix", [".tif", ".png", ".bmp"])
def test_a_size_is_bounded_before_memory_is_taken(tmp_path: Path, suffix: str, side: int) -> None:
    path = tmp_path / f"a{suffix}"
    match suffix:
        case ".png":
            Image.fromarray(COLOURS).save(path)
            data = bytearray(path.read_bytes())
            data[16:24] = struct.pack(">II", side, side)
            data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
        case ".bmp":
            Image.fromarray(COLOURS).save(path)
            data = bytearray(path.read_bytes())
            data[18:26] = struct.pack("<ii", side, side)
        case _:
            tifffile.imwrite(path, COLOURS, photometric="rgb")
            with tifffile.TiffFile(path, mode="r+b") as file:
                file.pages[0].tags["ImageWidth"].overwrite(side)
                file.pages[0].tags["ImageLength"].overwrite(side)
            data = bytearray(path.read_bytes())
    path.write_bytes(data)
    with pytest.raises(DataSetError, match="million pixels"):
        read_image(path)


def test_splits_are_found_in_capitals(tmp_path: Path) -> None:
    for split in ("Train", "TEST"):
        for stain in ("HE", "IHC"):
            _save(tmp_path / stain / split / "a.png")
    assert [pair.split for pair in find_pairs(tmp_path)] == ["train", "test"]
    assert len(find_pairs(tmp_path, "Test")) == 1


@pytest.mark.data
def test_real_pairs(shared_data: Path) -> None:
    pairs = find_pairs(shared_data / "pairs" / "he_mihc_hemit")
    assert len(pairs) == 12
    assert all(image.shape == (512, 512, 3) for image in read_pair(pairs[0]))
