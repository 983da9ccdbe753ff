"""A phantom of any size as a pyramidal TIFF, drawn block by block."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import tifffile

from wsi_ihc.errors import OutputError, SettingsError, StorageError
from wsi_ihc.machine.atomic import give_name, new_descriptor
from wsi_ihc.measures.her2 import Her2
from wsi_ihc.phantom.field import refuse_undrawable
from wsi_ihc.phantom.looks import Look
from wsi_ihc.phantom.pyramid import Scene, Spool, draw_pyramid
from wsi_ihc.phantom.section import Section, slide_lobes
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.pyramid.tiff import write_level


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
    """Draws a slide of ``size`` px at ``mpp`` um/px into a pyramidal tiled TIFF; tissue covers at most ``share`` of it.

    ``pair_path`` gets the HER2 IHC of the same section, pixel for pixel. The bytes depend only on the arguments, not on
    ``threads``. The names appear when the files are complete. ``progress`` gets the number of pixels drawn since its
    last call.

    Memory bound: ``2 * threads`` subtrees of 16 blocks of 512 px, and one tile per level. Encoded tiles are kept in a
    temporary file beside the output. Glass is encoded once.

    Raises:
        SettingsError: a score, size, pixel size or share that cannot be drawn.
        OutputError: a path cannot be written.
        StorageError: the disk is full, or refuses.
    """
    refuse_undrawable(her2, size.height, size.width, mpp, seed)
    if not 0 < share <= 1:
        raise SettingsError(f"share of tissue {share}: expected more than 0, at most 1")
    look = look or Look()
    um_per_px = mpp / look.scale
    lobes = slide_lobes(seed, size.height * um_per_px, size.width * um_per_px, share)
    scene = Scene(Section(seed, her2, lobes), size, mpp, look)
    paths = [Path(path)] if pair_path is None else [Path(path), Path(pair_path)]
    with ExitStack() as stack:
        try:
            parts = [target.with_name(target.name + ".part") for target in paths]
            for part in parts:
                part.unlink(missing_ok=True)
                os.close(new_descriptor(part))
                stack.callback(part.unlink, missing_ok=True)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another folder") from None
        try:
            spools = [Spool(scene, stack.enter_context(tempfile.TemporaryFile(dir=part.parent))) for part in parts]
            draw_pyramid(scene, spools, threads, progress)
            for spool, part, stain in zip(spools, parts, ("H&E", "HER2 IHC"), strict=False):
                _write_tiff(part, spool, stain)
        except OSError as error:
            raise StorageError(f"{path}: writing failed ({error.strerror}); nothing was left behind") from None
        for part, target in zip(parts, paths, strict=True):
            give_name(part, target)


def _write_tiff(path: Path, spool: Spool, stain: str) -> None:
    section = spool.scene.section
    what = f"{stain} of a synthetic tissue phantom, HER2 {section.her2}, seed {section.seed}"
    first = {"description": f"{what}. Drawn by wsi-ihc; no patient.", "software": "wsi-ihc phantom", "subfiletype": 0}
    with tifffile.TiffWriter(path, bigtiff=spool.end > 3_500_000_000) as tiff:
        for level in range(len(spool.levels)):
            write_level(tiff, spool, level, mpp=spool.scene.mpp, **({} if level else first))
