"""Tiles into bytes and back, and the mean between levels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsi_ihc.pyramid.codecs import DeflateTiles, JpegTiles, TileCodec
from wsi_ihc.pyramid.levels import halve


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 5)).flatmap(lambda shape: arrays(np.uint8, shape))
)
def test_halve_is_the_mean_of_four_rounded_up(pixels: np.ndarray) -> None:
    height, width = pixels.shape[:2]
    wide = np.pad(pixels.astype(int), ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    expected = (wide[0::2, 0::2] + wide[0::2, 1::2] + wide[1::2, 0::2] + wide[1::2, 1::2] + 2) >> 2
    assert np.array_equal(halve(pixels), expected)


def test_halve_of_a_view_inside_a_larger_plane() -> None:
    plane = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    assert np.array_equal(halve(plane[10:74, 7:71]), halve(plane[10:74, 7:71].copy()))


@given(arrays(np.uint8, (16, 16, 3)))
def test_deflate_is_exact(pixels: np.ndarray) -> None:
    codec = DeflateTiles(side=16)
    assert np.array_equal(codec.decode(codec.encode(pixels)), pixels)


def test_jpeg_is_close_and_better_quality_is_closer() -> None:
    y, x = np.mgrid[:64, :64]
    pixels = np.stack([2 * x + 60, 2 * y + 60, 128 + 40 * np.sin(x / 9)], axis=-1).astype(np.uint8)
    errors = [
        np.abs(codec.decode(codec.encode(pixels)).astype(int) - pixels).mean()
        for codec in (JpegTiles(quality, side=64) for quality in (30, 85, 95))
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[1] < 2


@pytest.mark.parametrize("kind", [JpegTiles, DeflateTiles])
def test_white_is_exactly_white_and_the_same_wherever_it_comes_from(kind: type[JpegTiles | DeflateTiles]) -> None:
    codec = kind()
    assert codec.decode(codec.fill_tile).min() == 255
    assert codec.encode(np.full((512, 512, 3), 255, np.uint8)) == codec.fill_tile
    assert len(codec.fill_tile) < 2000


@pytest.mark.parametrize("kind", [JpegTiles, DeflateTiles])
def test_damaged_bytes_are_no_tile(kind: type[JpegTiles | DeflateTiles]) -> None:
    codec = kind(side=32)
    data = codec.encode(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    assert codec.is_whole(data)
    assert not codec.is_whole(b"")
    assert not codec.is_whole(data[:-8] + bytes(8))
    with pytest.raises(ValueError, match="not a whole"):
        codec.decode(data[:20])


def test_beyond_the_plane_the_edge_is_repeated() -> None:
    codec = DeflateTiles(side=32)
    part = np.random.default_rng(0).integers(0, 256, (20, 7, 3), dtype=np.uint8)
    tile = codec.decode(codec.encode(part))
    assert np.array_equal(tile[:20, :7], part)
    assert (tile[:20, 7:] == part[:, -1:]).all()
    assert (tile[20:] == tile[19]).all()


def test_a_tile_that_is_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        JpegTiles().encode(np.zeros((512, 513, 3), np.uint8))


@pytest.mark.parametrize("codec", [JpegTiles(95, channels=1, fill=(0,)), DeflateTiles(channels=1, fill=(0,))])
def test_a_plane_of_one_channel_comes_back(codec: TileCodec) -> None:
    plane = np.mgrid[:512, :512].sum(axis=0, dtype=np.uint16).astype(np.uint8)[:300, :200, None] // 2
    decoded = codec.decode(codec.encode(plane))
    assert decoded.shape == (512, 512, 1)
    assert np.abs(decoded[:300, :200].astype(int) - plane).mean() < 1
    assert codec.decode(codec.fill_tile).max() == 0


def test_colours_that_a_codec_cannot_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="one or three channels, not 2"):
        JpegTiles(channels=2, fill=(0, 0))
    with pytest.raises(ValueError, match="1 channels need a fill of as many values"):
        DeflateTiles(channels=1)
