"""A phantom of any size as a pyramidal TIFF, drawn block by block."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO

import cv2
import imagecodecs
import numpy as np
import tifffile

from wsi_ihc.errors import OutputError, SettingsError, StorageError
from wsi_ihc.geometry import Region, Size
from wsi_ihc.phantom.field import BLOCK_PX, Field, check, draw_block
from wsi_ihc.phantom.looks import Look, Vector
from wsi_ihc.phantom.noise import Grid
from wsi_ihc.phantom.optics import Rgb, add_noise
from wsi_ihc.phantom.section import Her2, Section, slide_lobes

SUBTREE_LEVEL = 2
"""One task draws the blocks under one tile of this level: 16 of them."""


def draw_phantom(
    path: str | Path,
    *,
    her2: Her2,
    size: Size,
    mpp: float = 0.5,
    seed: int = 0,
    pair_path: str | Path | None = None,
    look: Look | None = None,
    share: float = 0.6,
    threads: int = 2,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Draw a slide of ``size`` px at ``mpp`` um/px, about ``share`` of it under tissue, into a pyramidal tiled TIFF.

    ``pair_path`` gets the HER2 IHC of the same section, pixel for pixel. The bytes depend on the arguments alone, not on
    ``threads``. The names appear when the files are complete. ``progress`` is told the pixels drawn since its last call.

    Memory bound: ``2 * threads`` subtrees of 16 blocks of 512 px ahead, and one tile per level; encoded tiles wait in a
    temporary file beside the output. Glass is encoded once.

    Raises:
        SettingsError: for a level, size, pixel size or share that cannot be drawn.
        OutputError: when a path cannot be written.
        StorageError: when the disk fills up.
    """
    check(her2, size.height, size.width, mpp, seed)
    if not 0 < share <= 1:
        raise SettingsError(f"share of tissue {share}: expected more than 0, at most 1")
    look = look or Look()
    um_per_px = mpp / look.scale
    lobes = slide_lobes(seed, size.height * um_per_px, size.width * um_per_px, share)
    scene = _Scene(Section(seed, her2, lobes), size, mpp, look)
    paths = [Path(path)] if pair_path is None else [Path(path), Path(pair_path)]
    with ExitStack() as stack:
        try:
            parts = [target.with_name(target.name + ".part") for target in paths]
            for part in parts:
                part.touch()
                stack.callback(part.unlink, missing_ok=True)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another folder") from None
        try:
            spools = [_Spool(stack.enter_context(tempfile.TemporaryFile(dir=part.parent))) for part in parts]
            _draw_pyramid(scene, spools, threads, progress)
            for spool, part, stain in zip(spools, parts, ("H&E", "HER2 IHC"), strict=False):
                _write_tiff(part, scene, spool, stain)
            for part, target in zip(parts, paths, strict=True):
                part.replace(target)
        except OSError as error:
            raise StorageError(f"{path}: writing failed ({error.strerror}); nothing was left behind") from None


@dataclass(frozen=True, slots=True)
class _Scene:
    """What is drawn, and the shape of its pyramid."""

    section: Section
    size: Size
    mpp: float
    look: Look

    @property
    def levels(self) -> int:
        """Until a level fits one tile."""
        return max(1, int(np.ceil(np.log2(max(self.size) / BLOCK_PX))) + 1) if max(self.size) > BLOCK_PX else 1

    def level_size(self, level: int) -> Size:
        return Size(-(-self.size.height >> level), -(-self.size.width >> level))

    def tiles(self, level: int) -> Size:
        """Rows and columns of tiles."""
        size = self.level_size(level)
        return Size(-(-size.height // BLOCK_PX), -(-size.width // BLOCK_PX))


@dataclass(slots=True)
class _Spool:
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


def _draw_pyramid(scene: _Scene, spools: list[_Spool], threads: int, progress: Callable[[int], None] | None) -> None:
    """Depth first, so that a tile waits only for its siblings."""
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
    pool: ThreadPoolExecutor, scene: _Scene, places: list[tuple[int, int, int]], stains: int, depth: int
) -> Iterator[_Drawn]:
    """Subtrees in order, at most ``depth`` of them in the making."""
    waiting: deque[Future[_Drawn]] = deque()
    for place in places:
        waiting.append(pool.submit(_subtree, scene, *place, stains))
        if len(waiting) == depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _children(scene: _Scene, level: int, row: int, column: int) -> list[tuple[int, int]]:
    tiles = scene.tiles(level - 1)
    return [
        (r, c)
        for r in (2 * row, 2 * row + 1)
        for c in (2 * column, 2 * column + 1)
        if r < tiles.height and c < tiles.width
    ]


def _depth_first(scene: _Scene, level: int, row: int, column: int, stop: int) -> Iterator[tuple[int, int, int]]:
    if level == stop:
        yield level, row, column
        return
    for at in _children(scene, level, row, column):
        yield from _depth_first(scene, level - 1, *at, stop)


def _visible(scene: _Scene, row: int, column: int, level: int) -> int:
    side = BLOCK_PX << level
    return Region(row * side, column * side, side, side).intersection(Region(0, 0, *scene.size)).area


def _subtree(scene: _Scene, level: int, row: int, column: int, stains: int) -> _Drawn:
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


def _merge(scene: _Scene, level: int, row: int, column: int, children: list[_Drawn], stains: int) -> _Drawn:
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


def _is_glass(scene: _Scene, region: Region) -> bool:
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
    encoded: bytes = imagecodecs.jpeg8_encode(
        picture, level=quality, colorspace="RGB", outcolorspace="YCBCR", subsampling="420"
    )
    return encoded


def _write_tiff(path: Path, scene: _Scene, spool: _Spool, stain: str) -> None:
    section = scene.section
    description = f"{stain} of a synthetic tissue phantom, HER2 {section.her2}, seed {section.seed}. Drawn by wsi-ihc; no patient."
    with tifffile.TiffWriter(path, bigtiff=spool.end > 3_500_000_000) as writer:
        for level in range(scene.levels):
            rows, columns = scene.tiles(level)
            per_cm = 1e4 / scene.mpp / 2**level
            writer.write(
                (spool.get((level, row, column)) for row in range(rows) for column in range(columns)),
                shape=(*scene.level_size(level), 3),
                dtype=np.uint8,
                tile=(BLOCK_PX, BLOCK_PX),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                subfiletype=1 if level else 0,
                description=description if level == 0 else None,
                software="wsi-ihc phantom" if level == 0 else None,
                metadata=None,
            )
