"""The tiles of a phantom's pyramid, drawn as a tree: blocks at the leaves, 2 x 2 means above them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import IO

import cv2
import imagecodecs
import numpy as np

from wsi_ihc.measures.dyes import Vector
from wsi_ihc.phantom.field import BLOCK_PX, Field, draw_block
from wsi_ihc.phantom.looks import Look
from wsi_ihc.phantom.noise import Grid
from wsi_ihc.phantom.optics import Rgb, add_noise
from wsi_ihc.phantom.section import Section
from wsi_ihc.pyramid.geometry import Region, Size

SUBTREE_LEVEL = 2
"""One task draws the blocks under one tile of this level: 16 of them."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What is drawn, and the shape of its pyramid."""

    section: Section
    size: Size
    mpp: float
    look: Look

    @property
    def levels(self) -> int:
        """Until a level fits one tile."""
        return 1 + max(0, math.ceil(math.log2(max(self.size) / BLOCK_PX)))

    def level_size(self, level: int) -> Size:
        return Size(-(-self.size.height >> level), -(-self.size.width >> level))

    def tiles(self, level: int) -> Size:
        """Rows and columns of tiles."""
        size = self.level_size(level)
        return Size(-(-size.height // BLOCK_PX), -(-size.width // BLOCK_PX))


@dataclass(slots=True)
class Spool:
    """Encoded tiles in the order in which they were made, found again by (level, row, column)."""

    file: IO[bytes]
    index: dict[tuple[int, int, int], tuple[int, int]] = field(default_factory=dict)
    shared: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    end: int = 0

    def put(self, key: tuple[int, int, int], tile: bytes, *, repeated: bool) -> None:
        if repeated and tile in self.shared:
            self.index[key] = self.shared[tile]
            return
        self.file.write(tile)
        self.index[key] = (self.end, len(tile))
        self.end += len(tile)
        if repeated:
            self.shared[tile] = self.index[key]

    def get(self, key: tuple[int, int, int]) -> bytes:
        offset, length = self.index[key]
        self.file.seek(offset)
        return self.file.read(length)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A tile of the pyramid, each stain's picture with the encoded tiles below and of it."""

    pictures: Field
    encoded: list[tuple[tuple[int, int, int], list[bytes], bool]]
    glass: bool


def draw_pyramid(scene: Scene, spools: list[Spool], threads: int, progress: Callable[[int], None] | None) -> None:
    """Every tile of the pyramid into a spool per stain, depth first, so that a tile waits only for its siblings."""
    top = scene.levels - 1
    subtree = min(SUBTREE_LEVEL, top)
    with ThreadPoolExecutor(threads) as pool:
        drawn = _ahead(pool, scene, [*_depth_first(scene, top, 0, 0, subtree)], len(spools), 2 * threads)

        def visit(level: int, row: int, column: int) -> _Drawn:
            if level == subtree:
                node = next(drawn)
                if progress:
                    progress(_visible(scene, row, column, level))
            else:
                node = _merge(
                    scene,
                    level,
                    row,
                    column,
                    [visit(level - 1, *at) for at in _children(scene, level, row, column)],
                    len(spools),
                )
            for key, tiles, repeated in node.encoded:
                for spool, tile in zip(spools, tiles, strict=True):
                    spool.put(key, tile, repeated=repeated)
            node.encoded.clear()
            return node

        visit(top, 0, 0)


def _ahead(
    pool: ThreadPoolExecutor, scene: Scene, places: list[tuple[int, int, int]], stains: int, depth: int
) -> Iterator[_Drawn]:
    """Subtrees in order, at most ``depth`` of them in the making."""
    waiting: deque[Future[_Drawn]] = deque()
    for place in places:
        waiting.append(pool.submit(_subtree, scene, *place, stains))
        if len(waiting) == depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _children(scene: Scene, level: int, row: int, column: int) -> list[tuple[int, int]]:
    tiles = scene.tiles(level - 1)
    return [
        (r, c)
        for r in (2 * row, 2 * row + 1)
        for c in (2 * column, 2 * column + 1)
        if r < tiles.height and c < tiles.width
    ]


def _depth_first(scene: Scene, level: int, row: int, column: int, stop: int) -> Iterator[tuple[int, int, int]]:
    if level == stop:
        yield level, row, column
        return
    for at in _children(scene, level, row, column):
        yield from _depth_first(scene, level - 1, *at, stop)


def _visible(scene: Scene, row: int, column: int, level: int) -> int:
    side = BLOCK_PX << level
    return Region(row * side, column * side, side, side).intersection(Region(0, 0, *scene.size)).area


def _subtree(scene: Scene, level: int, row: int, column: int, stains: int) -> _Drawn:
    if level > 0:
        return _merge(
            scene,
            level,
            row,
            column,
            [_subtree(scene, level - 1, *at, stains) for at in _children(scene, level, row, column)],
            stains,
        )
    region = Region(row * BLOCK_PX, column * BLOCK_PX, BLOCK_PX, BLOCK_PX)
    glass = _is_glass(scene, region)
    pictures = (
        _glass(scene.look) if glass else draw_block(scene.section, region, scene.mpp, scene.look, paired=stains > 1)
    )
    return _Drawn(pictures, [((0, row, column), _encode(pictures, scene.look, stains, glass=glass), glass)], glass)


def _merge(scene: Scene, level: int, row: int, column: int, children: list[_Drawn], stains: int) -> _Drawn:
    """The tile above up to four tiles: 2 x 2 means, glass where the slide has ended."""
    encoded = [entry for child in children for entry in child.encoded]
    glass = all(child.glass for child in children)
    pictures = _glass(scene.look)
    if not glass:
        pictures = Field(*(picture.copy() for picture in pictures))
        half = BLOCK_PX // 2
        for (r, c), child in zip(_children(scene, level, row, column), children, strict=True):
            top, left = (r - 2 * row) * half, (c - 2 * column) * half
            for target, source in zip(pictures[:stains], child.pictures, strict=False):
                target[top : top + half, left : left + half] = cv2.resize(
                    source, (half, half), interpolation=cv2.INTER_AREA
                )
    encoded.append(((level, row, column), _encode(pictures, scene.look, stains, glass=glass), glass))
    return _Drawn(pictures, encoded, glass)


def _is_glass(scene: Scene, region: Region) -> bool:
    """Decided on a grid of 9 x 9 points, which the outline's slack makes safe."""
    um = scene.mpp / scene.look.scale
    step = BLOCK_PX / 8
    return scene.section.is_glass(Grid(region.top * um, region.left * um, step * um, 9, 9))


@lru_cache(maxsize=8)
def _glass(look: Look) -> Field:
    """A block of bare glass with the sensor's noise."""
    return Field(*(add_noise(_plain(white), look.noise, 0, 0) for white in (look.white_he, look.white_ihc)))


def _plain(white: Vector) -> Rgb:
    return np.broadcast_to((np.array(white) + 0.5).astype(np.uint8), (BLOCK_PX, BLOCK_PX, 3)).copy()


def _encode(pictures: Field, look: Look, stains: int, *, glass: bool) -> list[bytes]:
    if glass:
        return list(_glass_tiles(look))[:stains]
    return [_jpeg(picture, look.jpeg_quality) for picture in pictures[:stains]]


@lru_cache(maxsize=8)
def _glass_tiles(look: Look) -> tuple[bytes, bytes]:
    he, ihc = _glass(look)
    return _jpeg(he, look.jpeg_quality), _jpeg(ihc, look.jpeg_quality)


def _jpeg(picture: Rgb, quality: int) -> bytes:
    # 4:2:0, as scanners write it; 4:4:4 is shown in wrong colours by Bio-Formats.
    return bytes(imagecodecs.jpeg8_encode(picture, quality, colorspace="RGB", outcolorspace="YCBCR", subsampling="420"))
