"""The store of encoded blocks: same bytes for every grid, whole or absent, resumable."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsi_ihc.conversion.store import StaleStoreError, StoreLayout, TileStore
from wsi_ihc.conversion.store.coarse import complete_levels
from wsi_ihc.conversion.store.planes import encode_plane
from wsi_ihc.conversion.store.zarr_codec import open_with_zarr
from wsi_ihc.errors import StorageError
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.pyramid.layers import STAINED, Layer
from wsi_ihc.pyramid.pyramid import level_tiles

FINGERPRINT = {"generator": {"sha256": "ab12"}, "settings": {"mpp": 0.5}}


def colourful(height: int, width: int) -> NDArray[np.uint8]:
    """Smooth and different everywhere, so that a misplaced tile shows."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    waves = [np.sin(x / 97 + y / 211), np.cos(y / 83), np.sin((x + y) / 150)]
    return np.stack([128 + 100 * wave for wave in waves], axis=-1).astype(np.uint8)


def filled(path: Path, plane: NDArray[np.uint8], layout: StoreLayout) -> TileStore:
    store = TileStore.create(path, layout, FINGERPRINT)
    for row, column in np.ndindex(layout.grid):
        put(store, plane, row, column)
    return store


def put(store: TileStore, plane: NDArray[np.uint8], row: int, column: int) -> None:
    """A worker's block: the whole core, with anything beyond the plane."""
    core = store.layout.core_px
    part = plane[row * core : (row + 1) * core, column * core : (column + 1) * core]
    pixels = np.full((core, core, 3), 7, np.uint8)
    pixels[: part.shape[0], : part.shape[1]] = part
    store.put(row, column, {STAINED: pixels})


def reference_levels(plane: NDArray[np.uint8], count: int) -> list[NDArray[np.uint8]]:
    """The pyramid the plain way: whole levels in memory."""
    levels = [plane]
    while len(levels) < count:
        finer = levels[-1]
        padded = np.pad(finer, ((0, finer.shape[0] % 2), (0, finer.shape[1] % 2), (0, 0)), mode="edge")
        wide = padded.astype(int)
        total = wide[0::2, 0::2] + wide[0::2, 1::2] + wide[1::2, 0::2] + wide[1::2, 1::2]
        levels.append(((total + 2) >> 2).astype(np.uint8))
    return levels


def level_pixels(store: TileStore, level: int) -> NDArray[np.uint8]:
    """A whole level, decoded."""
    (height, width), (rows, columns) = store.layout.levels[level], store.layout.tile_grids[level]
    pyramid = store.pyramid(STAINED)
    tiles = [pyramid.codec.decode(data) for data in level_tiles(pyramid, level)]
    bands = [np.concatenate(tiles[row * columns : (row + 1) * columns], axis=1) for row in range(rows)]
    return np.concatenate(bands)[:height, :width]


def everything(store: TileStore) -> list[list[bytes]]:
    """The tiles of all levels, as the writer of the output gets them."""
    with store.finished_pyramids() as pyramids:
        return [list(level_tiles(pyramids[STAINED], level)) for level in range(len(store.layout.levels))]


# The layout


@given(st.integers(1, 200_000), st.integers(1, 200_000))
def test_levels_halve_until_one_tile_holds_the_whole(height: int, width: int) -> None:
    levels = StoreLayout(Size(height, width), 1024).levels
    assert levels[0] == (height, width)
    assert all(coarse == (-(-fine.height // 2), -(-fine.width // 2)) for fine, coarse in pairwise(levels))
    assert max(levels[-1]) <= 512
    assert all(max(level) > 512 for level in levels[:-1])


def test_a_large_slide_has_nine_levels() -> None:
    assert len(StoreLayout(Size(98_304, 81_920), 1024).levels) == 9


@pytest.mark.parametrize(
    ("core_px", "patch_level", "patch_px"),
    [(512, 1, 256), (1024, 2, 256), (1536, 1, 768), (2048, 3, 256), (4096, 4, 256)],
)
def test_a_core_leaves_a_patch_where_it_fills_no_whole_tiles(core_px: int, patch_level: int, patch_px: int) -> None:
    layout = StoreLayout(Size(10_000, 10_000), core_px)
    assert (layout.patch_level, layout.patch_px) == (patch_level, patch_px)


@given(
    st.integers(1, 9000),
    st.integers(1, 9000),
    st.sampled_from([512, 1024, 1536, 2048]),
    st.randoms(use_true_random=False),
)
@settings(max_examples=50)
def test_occupied_tiles_are_those_that_a_block_touches(height: int, width: int, core: int, random: object) -> None:
    layout = StoreLayout(Size(height, width), core)
    blocks = np.array([random.random() < 0.3 for _ in range(layout.grid.height * layout.grid.width)])  # type: ignore[attr-defined]
    blocks = blocks.reshape(layout.grid)
    pixels = np.kron(blocks, np.ones((core // 512, core // 512), bool)).astype(bool)
    for level, occupied in enumerate(layout.occupied(blocks)):
        assert occupied.shape == layout.tile_grids[level]
        for row, column in np.ndindex(occupied.shape):
            under = pixels[row << level : (row + 1) << level, column << level : (column + 1) << level]
            inside = under[
                : layout.tile_grids[0].height - (row << level), : layout.tile_grids[0].width - (column << level)
            ]
            assert occupied[row, column] == inside.any()


def test_a_core_that_is_no_multiple_of_a_tile_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 512, not 1000"):
        StoreLayout(Size(10, 10), 1000)


# The pixels


@pytest.mark.parametrize("size", [(1700, 2500), (512, 1537), (1, 1), (40, 3000), (513, 512)])
def test_every_level_is_the_mean_of_the_one_below(tmp_path: Path, size: tuple[int, int]) -> None:
    plane = colourful(*size)
    store = filled(tmp_path / "store", plane, StoreLayout(Size(*size), 1024, (Layer(STAINED, "deflate"),)))
    complete_levels(store.files)
    for level, expected in enumerate(reference_levels(plane, len(store.layout.levels))):
        assert np.array_equal(level_pixels(store, level), expected)


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_the_grid_does_not_change_a_byte(tmp_path: Path, compression: str) -> None:
    plane = colourful(1700, 2500)
    plane[600:1300, 100:900] = 255
    layers = (Layer(STAINED, compression),)  # type: ignore[arg-type]
    results = [
        everything(filled(tmp_path / str(core), plane, StoreLayout(Size(1700, 2500), core, layers)))
        for core in (512, 1024, 1536, 2048, 4096)
    ]
    assert all(result == results[0] for result in results)


def test_blocks_that_were_never_put_are_white_and_the_grid_still_does_not_matter(tmp_path: Path) -> None:
    plane = np.full((2100, 1600, 3), 255, np.uint8)
    plane[1024:1536, 512:1024] = colourful(512, 512)
    results = []
    for core, cell in ((512, (2, 1)), (1024, (1, 0)), (1536, (0, 0))):
        store = TileStore.create(tmp_path / str(core), StoreLayout(Size(2100, 1600), core), FINGERPRINT)
        put(store, plane, *cell)
        results.append(everything(store))
    assert results[0] == results[1] == results[2]
    assert results[0][0].count(Layer(STAINED).codec.fill_tile) == 5 * 4 - 1


def test_a_store_without_blocks_is_all_glass(tmp_path: Path) -> None:
    layout = StoreLayout(Size(700, 1300), 512, (Layer(STAINED, fill=(246, 245, 244)),))
    store = TileStore.create(tmp_path / "store", layout, {})
    assert {data for level in everything(store) for data in level} == {layout.layer(STAINED).codec.fill_tile}


@pytest.mark.parametrize("core", [512, 1024, 1536, 2048])
@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_zarr_reads_every_part_of_every_block(tmp_path: Path, core: int, compression: str) -> None:
    plane = colourful(700, 2100)
    store = filled(
        tmp_path / "store.zarr", plane, StoreLayout(Size(700, 2100), core, (Layer(STAINED, compression, 95),))
    )  # type: ignore[arg-type]
    complete_levels(store.files)
    store.save_json("note", {"a": 1})
    group = open_with_zarr(store.path)
    coarse = range(store.layout.patch_level, len(store.layout.levels))
    assert sorted(name for name, _ in group.arrays()) == sorted([*(f"{STAINED}.{level}" for level in coarse), "blocks"])
    blocks = group["blocks"]
    levels = reference_levels(plane, len(store.layout.levels))
    for (row, column), (cell, part) in product(np.ndindex(store.layout.grid), store.layout.parts.items()):
        level, down, right = cell
        side = 256 if level == store.layout.patch_level else 512
        top, left = (row * core >> level) + down * side, (column * core >> level) + right * side
        expected = levels[level][top : top + side, left : left + side]
        found = blocks[row, column, part][: expected.shape[0], : expected.shape[1]]  # type: ignore[index]
        limit = 1.5 if compression == "jpeg" and side == 512 else 0
        assert not expected.size or np.abs(found.astype(int) - expected).mean() <= limit
    for level in coarse:
        found = group[f"{STAINED}.{level}"][:]  # type: ignore[index]
        assert np.abs(found.astype(int) - levels[level]).mean() < 1.5


def test_a_block_encodes_only_what_lies_on_the_plane() -> None:
    layout = StoreLayout(Size(1700, 2500), 1024)
    block = encode_plane(colourful(676, 452), layout, layout.layers[0])
    assert set(block.tiles) == {(0, 0, 0), (0, 1, 0), (1, 0, 0)}
    assert block.patch is not None
    assert block.patch.shape == (169, 113, 3)


# Resuming


def test_finished_blocks_are_known_again(tmp_path: Path) -> None:
    layout, plane = StoreLayout(Size(1700, 2500), 1024), colourful(1700, 2500)
    store = TileStore.create(tmp_path / "store", layout, FINGERPRINT)
    assert store.finished() == set()
    for cell in ((0, 0), (1, 2)):
        put(store, plane, *cell)
    again = TileStore.open(tmp_path / "store", layout, FINGERPRINT)
    assert again.finished() == {(0, 0), (1, 2)}
    assert TileStore.attach(tmp_path / "store") == again
    assert again.files.finished().sum() == 2


def test_what_changed_is_told_in_words(tmp_path: Path) -> None:
    layout = StoreLayout(Size(1700, 2500), 1024)
    TileStore.create(tmp_path / "store", layout, FINGERPRINT)
    changed = {"generator": {"sha256": "cd34"}, "settings": {"mpp": 0.5, "precision": "float16"}}
    with pytest.raises(StaleStoreError) as caught:
        TileStore.open(tmp_path / "store", StoreLayout(Size(1700, 2500), 512), changed)
    assert caught.value.differences == (
        "core_px changed from 1024 to 512",
        "generator.sha256 changed from ab12 to cd34",
        "settings.precision changed from nothing to float16",
    )


def test_a_damaged_description_is_stale_not_fatal(tmp_path: Path) -> None:
    layout = StoreLayout(Size(700, 700), 512)
    TileStore.create(tmp_path / "store", layout, {})
    (tmp_path / "store" / "zarr.json").write_bytes(b'{"wsi_')
    with pytest.raises(StaleStoreError, match="damaged"):
        TileStore.open(tmp_path / "store", layout, {})
    assert TileStore.create(tmp_path / "store", layout, {}).finished() == set()


def test_no_store_at_all(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        TileStore.open(tmp_path / "store", StoreLayout(Size(7, 7), 512), {})
    with pytest.raises(StorageError, match="no store"):
        TileStore.attach(tmp_path / "store")


def test_a_folder_of_somebody_else_is_never_removed(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(StorageError, match="in the way"):
        TileStore.create(folder, StoreLayout(Size(7, 7), 512), {})
    assert (folder / "thesis.txt").exists()


def test_what_a_later_run_must_reuse_comes_back(tmp_path: Path) -> None:
    arrays = {"mask": np.eye(5, dtype=bool), "mean": np.asarray(0.1)}
    store = TileStore.create(tmp_path / "store", StoreLayout(Size(7, 7), 512), {}, {"tissue": arrays})
    assert store.load_json("plan") is None
    assert store.finding("statistics") is None
    store.save_json("plan", {"batch": 4})
    again = TileStore.open(tmp_path / "store", store.layout, {})
    assert again.load_json("plan") == {"batch": 4}
    kept = again.finding("tissue")
    assert kept is not None
    assert all(np.array_equal(kept[name], value) for name, value in arrays.items())
    assert again.finished() == set()


@pytest.mark.parametrize("left", [0, 1, 100, -1])
def test_a_finding_that_a_power_cut_has_cut_is_none(tmp_path: Path, left: int) -> None:
    findings = {"tissue": {"mask": np.eye(50, dtype=bool)}}
    store = TileStore.create(tmp_path / "store", StoreLayout(Size(7, 7), 512), {}, findings)
    (file,) = store.path.rglob("*.npz")
    file.write_bytes(file.read_bytes()[:left])
    assert store.finding("tissue") is None


_WRITER = """
    import sys, numpy as np
    from pathlib import Path
    from wsi_ihc.conversion.store import TileStore
    store = TileStore.attach(Path(sys.argv[1]))
    plane = np.load(sys.argv[2])
    core = store.layout.core_px
    print("ready", flush=True)
    while True:
        for row, column in np.ndindex(store.layout.grid):
            block = plane[row * core : (row + 1) * core, column * core : (column + 1) * core]
            store.put(row, column, {"stained": block})
"""


@pytest.mark.parametrize("delay_s", [0.003, 0.02, 0.05])
def test_a_killed_writer_leaves_whole_blocks_only(tmp_path: Path, delay_s: float) -> None:
    plane, layout = colourful(3000, 2000), StoreLayout(Size(3000, 2000), 512)
    np.save(tmp_path / "plane.npy", plane)
    store = TileStore.create(tmp_path / "store", layout, FINGERPRINT)
    command = [sys.executable, "-c", textwrap.dedent(_WRITER), str(store.path), str(tmp_path / "plane.npy")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(delay_s)
        writer.send_signal(signal.SIGKILL)
    resumed = TileStore.open(store.path, layout, FINGERPRINT)
    assert not [path for path in store.path.rglob("*") if path.name.startswith(".part-")]
    for row, column in set(np.ndindex(layout.grid)) - resumed.finished():
        put(resumed, plane, row, column)
    assert everything(resumed) == everything(filled(tmp_path / "undisturbed", plane, layout))


def test_many_writers_at_once(tmp_path: Path) -> None:
    plane, layout = colourful(2048, 2048), StoreLayout(Size(2048, 2048), 512)
    store = TileStore.create(tmp_path / "many", layout, FINGERPRINT)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda cell: put(store, plane, *cell), np.ndindex(layout.grid)))
    assert everything(store) == everything(filled(tmp_path / "one", plane, layout))


# Trouble


def test_a_full_disk_is_one_line_and_the_store_goes_on_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plane, layout = colourful(1024, 1024), StoreLayout(Size(1024, 1024), 512)
    store = TileStore.create(tmp_path / "store", layout, FINGERPRINT)
    put(store, plane, 0, 0)
    write, calls = os.pwrite, iter(range(100))

    def full(descriptor: int, data: bytes, position: int) -> int:
        if next(calls) >= 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:100], position)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(StorageError, match="the disk is full") as caught:
            put(store, plane, 0, 1)
    assert "\n" not in str(caught.value)
    assert store.finished() == {(0, 0)}
    assert not [path for path in store.path.rglob("*") if path.name.startswith(".part-")]
    for cell in ((0, 1), (1, 0), (1, 1)):
        put(store, plane, *cell)
    assert everything(store) == everything(filled(tmp_path / "undisturbed", plane, layout))


def test_a_vanished_store_is_one_line(tmp_path: Path) -> None:
    layout = StoreLayout(Size(700, 700), 512)
    store = TileStore.create(tmp_path / "store", layout, {})
    store.path.rename(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="vanished"):
        store.put(0, 0, {STAINED: np.zeros((512, 512, 3), np.uint8)})
    with pytest.raises(StorageError, match="vanished"):
        store.finished()


def test_a_worker_that_wakes_does_not_write_into_a_later_runs_store(tmp_path: Path) -> None:
    layout, black = StoreLayout(Size(700, 700), 512), np.zeros((512, 512, 3), np.uint8)
    TileStore.create(tmp_path / "store", layout, {"run": 1})
    late = TileStore.attach(tmp_path / "store")
    store = TileStore.create(tmp_path / "store", layout, {"run": 2})
    with pytest.raises(StorageError, match="started again from the beginning"):
        late.put(0, 0, {STAINED: black})
    # Also when it had been stopped in the middle of a block.
    with pytest.raises(StorageError, match="vanished"):
        complete_levels(late.files)
    assert store.finished() == set()
    assert not list((store.path / f"{STAINED}.1").glob("*.0"))


@pytest.mark.parametrize("damage", ["empty", "zeros", "cut", "index", 0, 1, 2, 3, 4, 5])
def test_a_block_damaged_on_the_disk_is_forgotten_and_made_again(tmp_path: Path, damage: str | int) -> None:
    """A number is a part of the shard, in whose middle a sector is lost: four tiles, the tile of level 1, the patch."""
    plane, layout = colourful(2048, 2048), StoreLayout(Size(2048, 2048), 1024)
    store = filled(tmp_path / "store", plane, layout)
    path = store.path / "blocks" / "0.0.0.0.0.0"
    content = path.read_bytes()
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "zeros":
            path.write_bytes(bytes(len(content)))
        case "cut":
            os.truncate(path, len(content) // 2)
        case "index":
            path.write_bytes(content[:-64] + bytes(64))
        case int():
            offset, length = np.frombuffer(content[-100:-4], "<u8").reshape(6, 2)[damage]
            middle = int(offset + length // 2)
            path.write_bytes(content[:middle] + bytes(64) + content[middle + 64 :])
    with pytest.raises(StorageError, match="block 0, 0 was damaged"):
        everything(store)
    assert store.finished() == {(0, 1), (1, 0), (1, 1)}
    put(store, plane, 0, 0)
    assert everything(store) == everything(filled(tmp_path / "undisturbed", plane, layout))


def test_a_block_that_vanishes_while_the_output_is_written_is_made_again(tmp_path: Path) -> None:
    store = filled(tmp_path / "store", colourful(2048, 2048), StoreLayout(Size(2048, 2048), 1024))
    with ExitStack() as stack:
        tiles = level_tiles(stack.enter_context(store.finished_pyramids())[STAINED], 0)
        next(tiles)
        (store.path / "blocks" / "0.0.0.0.0.0").unlink()
        with pytest.raises(StorageError, match="block 0, 0 was damaged"):
            list(tiles)


def test_a_folder_of_marks_from_an_earlier_version_holds_no_blocks(tmp_path: Path) -> None:
    store = TileStore.create(tmp_path / "store", StoreLayout(Size(700, 700), 512), {})
    (store.path / "blocks" / "0.0").write_bytes(b"\x01")
    assert store.finished() == set()


def test_a_run_that_goes_on_keeps_the_colour_of_its_glass(tmp_path: Path) -> None:
    layout = StoreLayout(Size(700, 1300), 512, (Layer(STAINED, "deflate", fill=(246, 245, 244)),))
    TileStore.create(tmp_path / "store", layout, FINGERPRINT)
    again = TileStore.open(
        tmp_path / "store", StoreLayout(Size(700, 1300), 512, (Layer(STAINED, "deflate"),)), FINGERPRINT
    )
    layer = again.layout.layer(STAINED)
    assert layer == TileStore.attach(tmp_path / "store").layout.layer(STAINED)
    assert layer.fill == (246, 245, 244)
    tile = np.full((512, 512, 3), (246, 245, 244), np.uint8)
    np.testing.assert_array_equal(layer.codec.decode(layer.codec.encode(tile)), tile)
