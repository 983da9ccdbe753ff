"""Tile pyramids: the store of a run, whether it still goes on or not, and a finished output give the same tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.conftest import provenance, stained_island, write_store
from wsi_ihc.conversion.store import StoreLayout, TileStore
from wsi_ihc.errors import UnreadableSlideError, UnsupportedSlideError
from wsi_ihc.output.formats import open_output
from wsi_ihc.pyramid.codecs import Compression
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.pyramid.layers import STAINED, Layer
from wsi_ihc.pyramid.pyramid import TilePyramid, level_tiles

SIZE = Size(1300, 2100)


def half_done(path: Path, compression: Compression = "jpeg", core: int = 512) -> TileStore:
    """A store of which the left half is finished."""
    layout = StoreLayout(SIZE, core, (Layer(STAINED, compression, fill=(240, 241, 242)),), mpp=0.5)
    store, plane = TileStore.create(path, layout, {}), stained_island(*SIZE)
    for row, column in np.ndindex(layout.grid):
        if column * core < SIZE.width // 2:
            pixels = plane[row * core : (row + 1) * core, column * core : (column + 1) * core]
            store.put(row, column, {STAINED: pixels})
    return store


def all_tiles(pyramid: TilePyramid) -> list[list[bytes]]:
    return [list(level_tiles(pyramid, level)) for level in range(len(pyramid.levels))]


@pytest.mark.parametrize("core", [512, 1024, 1536])
def test_coarse_tiles_of_a_run_that_goes_on_are_those_of_the_finished_one(tmp_path: Path, core: int) -> None:
    store = half_done(tmp_path / "store", core=core)
    early = all_tiles(store.pyramid(STAINED))
    with store.finished_pyramids() as pyramids:
        assert all_tiles(pyramids[STAINED]) == early
    assert all_tiles(store.pyramid(STAINED)) == early


def test_a_pyramid_shows_the_blocks_that_were_finished_when_it_was_made(tmp_path: Path) -> None:
    store = half_done(tmp_path / "store")
    before = store.pyramid(STAINED)
    assert before.tile(0, 0, 4) is None
    assert before.tile(0, 0, 1) is not None
    store.put(0, 4, {STAINED: np.full((512, 512, 3), 99, np.uint8)})
    assert before.tile(0, 0, 4) is None
    assert store.pyramid(STAINED).tile(0, 0, 4) is not None


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_an_output_gives_the_tiles_that_the_store_held(tmp_path: Path, compression: Compression) -> None:
    store = half_done(tmp_path / "store", compression)
    path = write_store(store, tmp_path / "a.ome.tiff", provenance(SIZE, mpp=0.5))
    found, wanted = open_output(path)[STAINED], store.pyramid(STAINED)
    assert found.levels == wanted.levels
    assert found.mpp == wanted.mpp == 0.5
    assert found.codec.media_type == wanted.codec.media_type
    assert all_tiles(found) == all_tiles(wanted)
    tile = found.tile(0, 1, 1)
    assert tile is not None
    assert np.array_equal(found.codec.decode(tile), wanted.codec.decode(tile))


def test_what_is_no_output_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tiff"
    with pytest.raises(UnreadableSlideError, match="cannot be read"):
        open_output(path)
    path.write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(UnreadableSlideError, match="damaged, or no TIFF"):
        open_output(path)
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), photometric="rgb")
    with pytest.raises(UnsupportedSlideError, match="not encoded as wsi-ihc encodes them"):
        open_output(path)


def test_a_tile_of_an_output_that_was_cut_short_is_named(tmp_path: Path) -> None:
    store = half_done(tmp_path / "store")
    path = write_store(store, tmp_path / "a.ome.tiff", provenance(SIZE))
    pyramid = open_output(path)[STAINED]
    with path.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(UnreadableSlideError, match="tile 0, 0 of level 0 is damaged"):
        pyramid.tile(0, 0, 0)
