"""TileStore: the encoded tiles of an output while it is made, safe to kill and to share between processes."""

from __future__ import annotations

import io
import json
import os
import shutil
import weakref
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.conversion.store.coarse import complete_levels
from wsi_ihc.conversion.store.files import TEMPORARY, remove_temporary, storage_errors, write_whole
from wsi_ihc.conversion.store.layout import PIECE_PX, EncodedBlock, StoreLayout, encode_block
from wsi_ihc.conversion.store.metadata import ATTRIBUTE, BLOCKS, METADATA, block_at, block_key, create_group, level_key
from wsi_ihc.conversion.store.pieces import is_piece, piece_pixels, pieces_of
from wsi_ihc.conversion.store.shards import ShardWriter, new_shard, pack_shard, read_from_shard
from wsi_ihc.errors import StorageError
from wsi_ihc.pyramid.geometry import Size


class StaleStoreError(StorageError):
    """The store was made from something else; ``differences`` says from what, in words."""

    def __init__(self, path: Path, differences: tuple[str, ...]) -> None:
        super().__init__(f"{path}: cannot be continued: {'; '.join(differences)}")
        self.differences = differences


@dataclass(frozen=True)
class TileStore:
    """Encoded tiles by block, on disk, in the folder ``path``.

    A block is one file, written under a temporary name first: many processes and machines may write at once, and a
    process that is killed leaves its block unfinished, nothing else.
    A tile that is absent is glass, of the colour that ``layout`` names. Nothing is synced to the disk block by block;
    a power cut may cost finished blocks, which is noticed when the output is written.
    """

    path: Path
    layout: StoreLayout

    @classmethod
    def create(
        cls,
        path: Path,
        layout: StoreLayout,
        fingerprint: Mapping[str, Any],
        findings: Mapping[str, Mapping[str, NDArray[Any]]] = MappingProxyType({}),
    ) -> TileStore:
        """A store without blocks, which appears at once and whole; an older one at ``path`` is removed.

        ``fingerprint`` is whatever the pixels depend on (settings, generator, source), as JSON values; nested
        mappings are allowed. ``layout`` belongs to it without being named. ``findings`` are arrays by name that all
        blocks and every later run need; they are kept without loss.

        Raises:
            StorageError: the disk refuses, or ``path`` is something else than a store.
        """
        with storage_errors(path):
            _remove_store(path)
            fresh = path.with_name(f"{TEMPORARY}{path.name}")
            shutil.rmtree(fresh, ignore_errors=True)
            create_group(fresh, layout, {"layout": asdict(layout), "fingerprint": dict(fingerprint)})
            for name, arrays in findings.items():
                np.savez_compressed(fresh / _finding_key(name), allow_pickle=False, **arrays)
            os.replace(fresh, path)
        return cls(path, layout)._held()

    @classmethod
    def open(
        cls, path: Path, layout: StoreLayout, fingerprint: Mapping[str, Any], *, any_core: bool = False
    ) -> TileStore:
        """Continues a store, when nobody else has it open: what killed processes left half written is removed.

        The store keeps the colour of its glass, and with ``any_core`` the size of its blocks, whatever ``layout`` says
        of them.

        Raises:
            FileNotFoundError: there is none; create it.
            StaleStoreError: it was made with another ``layout`` or ``fingerprint``, or its description is damaged.
            StorageError: the disk refuses.
        """
        if not path.exists():
            raise FileNotFoundError(path)
        description = _describe(path)
        if description is None:
            raise StaleStoreError(path, ("its description is damaged",))
        known = description.get("layout", {})
        if any_core:
            layout = replace(layout, core_px=known["core_px"])
        layout = replace(layout, glass=tuple(known.get("glass", layout.glass)))
        wanted = _plain({"layout": asdict(layout), "fingerprint": dict(fingerprint)})
        differences = [
            *_differences(known, wanted["layout"]),
            *_differences(description.get("fingerprint", {}), wanted["fingerprint"]),
        ]
        if differences:
            raise StaleStoreError(path, tuple(differences))
        with storage_errors(path):
            for folder in path.iterdir():
                if folder.is_dir():
                    remove_temporary(folder)
        return cls(path, layout)._held()

    @classmethod
    def attach(cls, path: Path) -> TileStore:
        """The store at ``path`` as it is, for a worker that adds blocks to it.

        Raises:
            StorageError: there is none.
        """
        description = _describe(path)
        if description is None:
            raise StorageError(f"{path}: no store of blocks; it has vanished or was never made")
        return cls(path, StoreLayout.from_json(description["layout"]))._held()

    def put(self, row: int, column: int, pixels: NDArray[np.uint8]) -> int:
        """Encodes and stores a block: ``pixels`` (core, core, 3), of which what lies beyond the plane is ignored.

        Returns the bytes written. Thread-safe; putting a block again replaces it.

        Raises:
            StorageError: the disk is full, read-only or gone.
        """
        height, width = self.layout.inside(row, column)
        return self.put_encoded(row, column, encode_block(pixels[:height, :width], self.layout))

    def put_encoded(self, row: int, column: int, block: EncodedBlock) -> int:
        """Stores a block that was encoded elsewhere with this store's ``layout``; as ``put`` does."""
        self._check_place()
        parts: list[bytes | None] = [block.tiles.get(cell) for cell in self.layout.parts]
        if block.patch is not None:
            pieces = list(pieces_of(block.patch, self.layout.patch_px))
            parts[-len(pieces) :] = pieces
        shard = pack_shard(parts)
        self._write(block_key(row, column), shard)
        return len(shard)

    def finished(self) -> set[tuple[int, int]]:
        """Row and column of every finished block; one listing of one folder."""
        with storage_errors(self.path), os.scandir(f"{self._root}/{BLOCKS}") as entries:
            return {cell for entry in entries if (cell := block_at(entry.name))}

    def finished_mask(self) -> NDArray[np.bool_]:
        """The same as an array over the grid of blocks."""
        mask = np.zeros(self.layout.grid, bool)
        for row, column in self.finished():
            mask[row, column] = True
        return mask

    @property
    def levels(self) -> tuple[Size, ...]:
        return self.layout.levels

    def complete(self) -> None:
        """Makes the levels that no block owns from the patches. Needs no more memory for a larger slide.

        Raises:
            StorageError: a patch is damaged; its block is forgotten, so that the next run makes it again.
        """
        complete_levels(self)

    def tiles(self, level: int) -> Iterator[bytes]:
        """The encoded tiles of ``level`` row by row, glass where nothing was stored; ``complete`` comes first.

        Raises:
            StorageError: a tile of a finished block is damaged or missing; the block is forgotten.
        """
        glass = self.layout.codec.glass_tile
        occupied = self.layout.occupied(self.finished_mask())[level]
        for row, column in np.ndindex(occupied.shape):
            yield self.read_tile(level, row, column) if occupied[row, column] else glass

    def read_tile(self, level: int, row: int, column: int) -> bytes:
        """The encoded bytes of a tile that was stored.

        Raises:
            StorageError: it is damaged or missing.
        """
        if level >= self.layout.patch_level:
            rows, columns = self.layout.tile_grid(level)
            (data,) = self._read_parts(level_key(level), rows * columns, [row * columns + column])
            if self.layout.codec.is_whole(data):
                return data
            raise StorageError(
                f"{self.path}: tile {row}, {column} of level {level} is damaged; run the same command again"
            )
        per_core = self.layout.core_tiles(level)
        (block_row, tile_row), (block_column, tile_column) = divmod(row, per_core), divmod(column, per_core)
        (data,) = self._read_block(block_row, block_column, [(level, tile_row, tile_column)])
        if self.layout.codec.is_whole(data):
            return data
        raise self._forget(block_row, block_column)

    @contextmanager
    def new_level(self, level: int) -> Generator[ShardWriter]:
        """For the tiles of a level that no block owns, numbered row by row; it is there when the context ends."""
        rows, columns = self.layout.tile_grid(level)
        with storage_errors(self.path), new_shard(level_key(level), rows * columns, folder=self._handle) as shard:
            yield shard

    def read_patch(self, row: int, column: int) -> NDArray[np.uint8]:
        """The patch (patch_px, patch_px, 3) of a finished block.

        Raises:
            StorageError: it is damaged or missing; the block is forgotten.
        """
        level, side = self.layout.patch_level, self.layout.patch_px // PIECE_PX
        cells = list(np.ndindex(side, side))
        patch = np.empty((side, PIECE_PX, side, PIECE_PX, 3), np.uint8)
        pieces = self._read_block(row, column, [(level, *cell) for cell in cells])
        for (down, right), data in zip(cells, pieces, strict=True):
            if not is_piece(data):
                raise self._forget(row, column)
            patch[down, :, right] = piece_pixels(data)
        return patch.reshape(self.layout.patch_px, self.layout.patch_px, 3)

    def save_json(self, name: str, value: Any) -> None:
        """Keeps a JSON value for a later run."""
        self._write(f"{BLOCKS}/kept-{name}.json", json.dumps(value, indent=1).encode())

    def load_json(self, name: str) -> Any | None:
        """What ``save_json`` kept; None when nothing was."""
        data = self._read(f"{BLOCKS}/kept-{name}.json")
        return json.loads(data) if data else None

    def finding(self, name: str) -> dict[str, NDArray[Any]] | None:
        """The arrays that the store was created with under that name; None when there are none, or a power cut took
        them.
        """
        try:
            with np.load(io.BytesIO(self._read(_finding_key(name))), allow_pickle=False) as kept:
                return {key: kept[key] for key in kept.files}
        except (ValueError, EOFError, BadZipFile):
            return None

    def _held(self) -> TileStore:
        """The same, its folder open from now on."""
        assert self._handle
        return self

    @cached_property
    def _handle(self) -> int:
        """The folder itself, for writing. A worker that was taken for dead may wake when another run has put a store of
        its own under this name; what it still writes must not land there.
        """
        with storage_errors(self.path):
            handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        weakref.finalize(self, os.close, handle)
        return handle

    def _check_place(self) -> None:
        with storage_errors(self.path):
            in_place = os.path.samestat(os.stat(self.path), os.fstat(self._handle))
        if not in_place:
            raise StorageError(f"{self.path}: another run has begun afresh here; this one ends")

    @cached_property
    def _root(self) -> str:
        return str(self.path)

    def _write(self, key: str, data: bytes) -> None:
        with storage_errors(self.path):
            write_whole(key, data, folder=self._handle)

    def _read(self, key: str) -> bytes:
        """The bytes under ``key``; none when it is absent."""
        with storage_errors(self.path):
            try:
                with open(f"{self._root}/{key}", "rb", buffering=0) as file:
                    return file.read()
            except FileNotFoundError:
                return b""

    def _read_block(self, row: int, column: int, cells: Iterable[tuple[int, int, int]]) -> list[bytes]:
        """Parts of a block, by their places in it; empty where one is damaged or absent."""
        parts = self.layout.parts
        return self._read_parts(block_key(row, column), len(parts), [parts[cell] for cell in cells])

    def _read_parts(self, key: str, count: int, numbers: Sequence[int]) -> list[bytes]:
        """Parts of a shard of ``count``; empty where one is damaged or absent."""
        with storage_errors(self.path):
            try:
                descriptor = os.open(f"{self._root}/{key}", os.O_RDONLY)
            except FileNotFoundError:
                return [b""] * len(numbers)
            try:
                return list(read_from_shard(descriptor, count, numbers))
            finally:
                os.close(descriptor)

    def _forget(self, row: int, column: int) -> StorageError:
        """Marks a block as not finished, and returns the error that says so."""
        with storage_errors(self.path):
            Path(self._root, block_key(row, column)).unlink(missing_ok=True)
        return StorageError(
            f"{self.path}: block {row}, {column} was damaged on the disk and is forgotten; "
            "run the same command again, it makes that block anew"
        )


def _finding_key(name: str) -> str:
    return f"{BLOCKS}/kept-{name}.npz"


def _describe(path: Path) -> dict[str, Any] | None:
    """The description that ``create`` wrote; None when there is none that can be read."""
    with storage_errors(path):
        try:
            description = json.loads((path / METADATA).read_bytes())["attributes"][ATTRIBUTE]
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            return None
    return description if isinstance(description, dict) and isinstance(description.get("layout"), dict) else None


def _remove_store(path: Path) -> None:
    """Removes a store, also a damaged one; never anything else that has its name."""
    if not os.path.lexists(path):
        return
    # .zgroup: stores of an earlier version.
    ours = path.is_dir() and (any((path / name).exists() for name in (METADATA, ".zgroup")) or not any(path.iterdir()))
    if path.is_symlink() or not ours:
        raise StorageError(f"{path}: is in the way and no store of blocks; remove it or choose another output name")
    shutil.rmtree(path)


def _plain(value: Any) -> Any:
    """``value`` as it comes back from JSON: tuples are lists, keys are text."""
    return json.loads(json.dumps(value))


def _differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    """One line for every value that changed, by its dotted name."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield f"{name} changed from {_short(old)} to {_short(new)}"


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
