"""The tiles of a phantom's pyramid: level 0 is drawn, every other level is the 2x2 mean of the level below it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import IO

import numpy as np

from wsi_ihc.measures.dyes import Vector
from wsi_ihc.phantom.field import BLOCK_PX, Field, draw_block
from wsi_ihc.phantom.looks import Look
from wsi_ihc.phantom.noise import Grid
from wsi_ihc.phantom.optics import Rgb, add_noise
from wsi_ihc.phantom.section import Section
from wsi_ihc.pyramid.codecs import JpegTiles
from wsi_ihc.pyramid.folding import Cell, fold, leaves, paste_quarter
from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.pyramid.levels import halve, level_sizes, tile_grid

SUBTREE_LEVEL = 2
"""One task draws the blocks under one tile of this level: 16 of them."""


@dataclass(frozen=True)
class Scene:
    """The section to draw, and the shape of its pyramid."""

    section: Section
    size: Size
    mpp: float
    look: Look

    @cached_property
    def levels(self) -> tuple[Size, ...]:
        """Size of each level, until a level fits in one tile."""
        return level_sizes(self.size, BLOCK_PX)

    @cached_property
    def grids(self) -> tuple[Size, ...]:
        """Rows and columns of tiles on each level."""
        return tuple(tile_grid(size, BLOCK_PX) for size in self.levels)

    @property
    def codec(self) -> JpegTiles:
        """JPEG 4:2:0, as scanners write it."""
        return JpegTiles(self.look.jpeg_quality, side=BLOCK_PX)


@dataclass
class Spool:
    """The pyramid of one stain of a scene, a `TilePyramid`: encoded tiles in ``file``, in the order of drawing.

    Equal tiles are stored once. Only one thread at a time may use it.
    """

    scene: Scene
    file: IO[bytes]
    index: dict[Cell, tuple[int, int]] = field(default_factory=dict)
    shared: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    end: int = 0

    @property
    def levels(self) -> tuple[Size, ...]:
        return self.scene.levels

    @property
    def codec(self) -> JpegTiles:
        return self.scene.codec

    @property
    def mpp(self) -> float | None:
        return self.scene.mpp

    def put(self, cell: Cell, tile: bytes, *, repeated: bool) -> None:
        if repeated and tile in self.shared:
            self.index[cell] = self.shared[tile]
            return
        self.file.write(tile)
        self.index[cell] = (self.end, len(tile))
        self.end += len(tile)
        if repeated:
            self.shared[tile] = self.index[cell]

    def tile(self, level: int, row: int, column: int) -> bytes | None:
        offset, length = self.index[Cell(level, row, column)]
        self.file.seek(offset)
        return self.file.read(length)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A tile of the pyramid: its picture in each stain, and its encoded tiles with those below it."""

    pictures: Field
    encoded: list[tuple[Cell, list[bytes], bool]]
    glass: bool


def draw_pyramid(scene: Scene, spools: list[Spool], threads: int, progress: Callable[[int], None] | None) -> None:
    """Draws every tile of the pyramid into a spool for each stain, depth first: a tile waits only for its siblings."""
    top = Cell(len(scene.levels) - 1, 0, 0)
    floor = min(SUBTREE_LEVEL, top.level)
    with ThreadPoolExecutor(threads) as pool:
        drawn = _ahead(pool, scene, leaves(scene.grids, top, floor=floor), len(spools), 2 * threads)

        def subtree(cell: Cell) -> _Drawn:
            node = next(drawn)
            if progress:
                progress(_visible(scene, cell))
            return _spooled(node, spools)

        def join(cell: Cell, below: Iterable[tuple[Cell, _Drawn]]) -> _Drawn:
            return _spooled(_merge(scene, cell, below, len(spools)), spools)

        fold(scene.grids, top, subtree, join, floor=floor)


def _spooled(node: _Drawn, spools: list[Spool]) -> _Drawn:
    """Moves the encoded tiles of ``node`` into the spools, and returns it."""
    for cell, tiles, repeated in node.encoded:
        for spool, tile in zip(spools, tiles, strict=True):
            spool.put(cell, tile, repeated=repeated)
    node.encoded.clear()
    return node


def _ahead(pool: ThreadPoolExecutor, scene: Scene, places: Iterable[Cell], stains: int, depth: int) -> Iterator[_Drawn]:
    """The subtrees in order; the pool draws at most ``depth`` of them ahead."""
    waiting: deque[Future[_Drawn]] = deque()
    for place in places:
        waiting.append(pool.submit(_subtree, scene, place, stains))
        if len(waiting) == depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _visible(scene: Scene, cell: Cell) -> int:
    """Pixels of level 0 under a tile."""
    side = BLOCK_PX << cell.level
    return Region(cell.row * side, cell.column * side, side, side).intersection(Region(0, 0, *scene.size)).area


def _subtree(scene: Scene, top: Cell, stains: int) -> _Drawn:
    def join(cell: Cell, below: Iterable[tuple[Cell, _Drawn]]) -> _Drawn:
        return _merge(scene, cell, below, stains)

    return fold(scene.grids, top, lambda cell: _draw(scene, cell, stains), join)


def _draw(scene: Scene, cell: Cell, stains: int) -> _Drawn:
    """A tile of level 0."""
    region = Region(cell.row * BLOCK_PX, cell.column * BLOCK_PX, BLOCK_PX, BLOCK_PX)
    if _is_glass(scene, region):
        return _empty(scene, cell, stains, [])
    pictures = draw_block(scene.section, region, scene.mpp, scene.look, paired=stains > 1)
    return _Drawn(pictures, [(cell, _encode(scene, pictures, stains), False)], False)


def _merge(scene: Scene, cell: Cell, below: Iterable[tuple[Cell, _Drawn]], stains: int) -> _Drawn:
    """The tile above up to four tiles: their 2x2 means, and glass beyond the edge of the slide."""
    children = list(below)
    encoded = [entry for _, child in children for entry in child.encoded]
    if all(child.glass for _, child in children):
        return _empty(scene, cell, stains, encoded)
    pictures = Field(*(picture.copy() for picture in _glass(scene.look)))
    for place, child in children:
        for target, source in zip(pictures[:stains], child.pictures, strict=False):
            paste_quarter(target, place, halve(source), tile_px=BLOCK_PX)
    return _Drawn(pictures, [*encoded, (cell, _encode(scene, pictures, stains), False)], False)


def _empty(scene: Scene, cell: Cell, stains: int, below: list[tuple[Cell, list[bytes], bool]]) -> _Drawn:
    """A tile of empty glass above tiles of empty glass."""
    glass = _encoded_glass(scene.look, scene.codec)[:stains]
    return _Drawn(_glass(scene.look), [*below, (cell, glass, True)], True)


def _is_glass(scene: Scene, region: Region) -> bool:
    """Whether a region is glass, from 9 x 9 points: the margin around the outline makes this safe."""
    um = scene.mpp / scene.look.scale
    step = BLOCK_PX / 8
    return scene.section.is_glass(Grid(region.top * um, region.left * um, step * um, 9, 9))


@lru_cache(maxsize=8)
def _glass(look: Look) -> Field:
    """A block of empty glass with the sensor's noise."""
    return Field(*(add_noise(_plain(white), look.noise, 0, 0) for white in (look.white_he, look.white_ihc)))


def _plain(white: Vector) -> Rgb:
    return np.broadcast_to((np.array(white) + 0.5).astype(np.uint8), (BLOCK_PX, BLOCK_PX, 3)).copy()


def _encode(scene: Scene, pictures: Field, stains: int) -> list[bytes]:
    return [scene.codec.encode(picture) for picture in pictures[:stains]]


@lru_cache(maxsize=8)
def _encoded_glass(look: Look, codec: JpegTiles) -> list[bytes]:
    return [codec.encode(picture) for picture in _glass(look)]
