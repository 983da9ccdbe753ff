"""TileStore: the encoded tiles of an output while it is made, safe to kill and to share between processes."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.conversion.store.blockfiles import BlockFiles
from wsi_ihc.conversion.store.description import describe, differences, read_description
from wsi_ihc.conversion.store.files import TEMPORARY, remove_temporary, storage_errors
from wsi_ihc.conversion.store.layout import StoreLayout
from wsi_ihc.conversion.store.metadata import BLOCKS, METADATA, block_key, create_group
from wsi_ihc.conversion.store.planes import encode_plane
from wsi_ihc.conversion.store.reading import StorePyramid, finished_pyramids
from wsi_ihc.conversion.store.shards import pack_shard
from wsi_ihc.errors import StorageError
from wsi_ihc.pyramid.layers import Layer
from wsi_ihc.pyramid.levels import Pixels
from wsi_ihc.pyramid.pyramid import TilePyramid


class StaleStoreError(StorageError):
    """The store was made from something else; ``differences`` says in words what has changed."""

    def __init__(self, path: Path, differences: tuple[str, ...]) -> None:
        super().__init__(f"{path}: cannot be continued: {'; '.join(differences)}")
        self.differences = differences


@dataclass(frozen=True)
class TileStore:
    """Encoded tiles by block, on disk, in the folder ``path``.

    A block is one file, written under a temporary name first: many processes and machines may write at once, and a
    process that is killed leaves its block unfinished, nothing else.
    A tile that is absent is empty glass, of the colour that its layer names. Nothing is synced to the disk block by
    block; a power cut may cost finished blocks, which is noticed when the output is written.
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

        ``fingerprint`` holds everything that the pixels depend on (settings, generator, source), as JSON values; nested
        mappings are allowed. ``layout`` belongs to it without being named. ``findings`` are arrays by name that all
        blocks and every later run need; they are kept without loss.

        Raises:
            StorageError: the disk refuses, or ``path`` is something else than a store.
        """
        with storage_errors(path):
            _remove_store(path)
            fresh = path.with_name(f"{TEMPORARY}{path.name}")
            shutil.rmtree(fresh, ignore_errors=True)
            create_group(fresh, layout, describe(layout, fingerprint))
            for name, arrays in findings.items():
                np.savez_compressed(fresh / _finding_key(name), allow_pickle=False, **arrays)
            os.replace(fresh, path)
        return cls(path, layout)._held()

    @classmethod
    def open(
        cls, path: Path, layout: StoreLayout, fingerprint: Mapping[str, Any], *, any_core: bool = False
    ) -> TileStore:
        """Continues a store that no other process has open; removes what killed processes left half written.

        The store keeps the colours of its empty glass, and with ``any_core`` the size of its blocks, whatever
        ``layout`` says of them.

        Raises:
            FileNotFoundError: there is none; create it.
            StaleStoreError: it was made with another ``layout`` or ``fingerprint``, or its description is damaged.
            StorageError: the disk refuses.
        """
        if not path.exists():
            raise FileNotFoundError(path)
        description = read_description(path)
        if description is None:
            raise StaleStoreError(path, ("its description is damaged",))
        known = StoreLayout.from_json(description["layout"])
        if any_core:
            layout = replace(layout, core_px=known.core_px)
        layout = replace(layout, layers=_with_fills_of(known, layout))
        wanted = describe(layout, fingerprint)
        changes = [
            *differences(description["layout"], wanted["layout"]),
            *differences(description.get("fingerprint", {}), wanted["fingerprint"]),
        ]
        if changes:
            raise StaleStoreError(path, tuple(changes))
        with storage_errors(path):
            for folder in path.iterdir():
                if folder.is_dir():
                    remove_temporary(folder)
        return cls(path, layout)._held()

    @classmethod
    def attach(cls, path: Path) -> TileStore:
        """The store at ``path`` as it is, for a worker that adds blocks, or for a viewer that reads them.

        Raises:
            StorageError: there is none.
        """
        description = read_description(path)
        if description is None:
            raise StorageError(f"{path}: no store of blocks; it has vanished or was never made")
        return cls(path, StoreLayout.from_json(description["layout"]))._held()

    def put(self, row: int, column: int, planes: Mapping[str, Pixels]) -> int:
        """Encodes and stores a block: the pixels (core, core, channels) of every layer, by the layer's name.

        What lies beyond the plane is ignored. Returns the bytes written. Thread-safe; putting a block again replaces
        it.

        Raises:
            KeyError: a layer is missing.
            StorageError: the disk is full, read-only or gone.
        """
        self.files.check_place()
        height, width = self.layout.inside(row, column)
        parts: list[bytes | None] = []
        for layer in self.layout.layers:
            parts += encode_plane(planes[layer.name][:height, :width], self.layout, layer).parts(self.layout)
        shard = pack_shard(parts)
        self.files.write(block_key(row, column), shard)
        return len(shard)

    def finished(self) -> set[tuple[int, int]]:
        """Row and column of every finished block."""
        return {(int(row), int(column)) for row, column in np.argwhere(self.files.finished())}

    def pyramid(self, layer: str) -> TilePyramid:
        """One layer as far as it has got; make it again to see the blocks that were finished since.

        Raises:
            KeyError: there is no such layer.
            StorageError: the store has vanished.
        """
        return StorePyramid(self.files, self.layout.layer_number(layer), self.files.finished())

    def finished_pyramids(self) -> AbstractContextManager[dict[str, TilePyramid]]:
        """All layers of a store whose last block is stored, for the writer of the output."""
        return finished_pyramids(self.files)

    def save_json(self, name: str, value: Any) -> None:
        """Keeps a JSON value for a later run."""
        self.files.write(f"{BLOCKS}/kept-{name}.json", json.dumps(value, indent=1).encode())

    def load_json(self, name: str) -> Any | None:
        """The value that ``save_json`` kept; None when there is none."""
        data = self.files.read(f"{BLOCKS}/kept-{name}.json")
        return json.loads(data) if data else None

    def finding(self, name: str) -> dict[str, NDArray[Any]] | None:
        """The arrays that the store was created with under this name; None when there are none, or a power cut took
        them.
        """
        try:
            with np.load(io.BytesIO(self.files.read(_finding_key(name))), allow_pickle=False) as kept:
                return {key: kept[key] for key in kept.files}
        except (ValueError, EOFError, BadZipFile):
            return None

    @cached_property
    def files(self) -> BlockFiles:
        """The files of the store."""
        return BlockFiles(self.path, self.layout)

    def _held(self) -> TileStore:
        """Returns self, with its folder opened for writing."""
        self.files.held()
        return self


def _with_fills_of(known: StoreLayout, layout: StoreLayout) -> tuple[Layer, ...]:
    fills = {layer.name: layer.fill for layer in known.layers}
    return tuple(
        replace(layer, fill=fills[layer.name]) if len(fills.get(layer.name, ())) == layer.channels else layer
        for layer in layout.layers
    )


def _finding_key(name: str) -> str:
    return f"{BLOCKS}/kept-{name}.npz"


def _remove_store(path: Path) -> None:
    """Removes a store, also a damaged one; never anything else that has its name."""
    if not os.path.lexists(path):
        return
    # .zgroup: stores of an earlier version.
    ours = path.is_dir() and (any((path / name).exists() for name in (METADATA, ".zgroup")) or not any(path.iterdir()))
    if path.is_symlink() or not ours:
        raise StorageError(f"{path}: is in the way and no store of blocks; remove it or choose another output name")
    shutil.rmtree(path)
