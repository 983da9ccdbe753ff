"""From the store's encoded tiles to one pyramidal OME-TIFF that every reader opens with all its levels."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tifffile

from wsi_ihc.conversion.store import StoreLayout, TileStore
from wsi_ihc.errors import OutputError, StorageError
from wsi_ihc.output.ometiff.bigtiff import link_levels
from wsi_ihc.output.ometiff.omexml import ome_xml
from wsi_ihc.output.ometiff.verification import verify_ome_tiff
from wsi_ihc.output.provenance import Provenance
from wsi_ihc.pyramid.blocks import TILE_PX


def write_ome_tiff(store: TileStore, path: Path, provenance: Provenance) -> Path:
    """Writes the finished blocks of ``store`` as a BigTIFF at ``path``, usually ``OUT.ome.tiff.part``, and syncs it.

    Tiles are copied as they are, one at a time: nothing is decoded or encoded but the levels that no block owns.
    The same store and provenance give the same bytes. Returns ``path``; ``finish_ome_tiff`` gives it its name.

    Raises:
        StorageError: the disk is full, read-only or gone, or a block in the store is damaged. The store can be
            resumed; the half-written file is removed.
    """
    try:
        with ThreadPoolExecutor(1) as beside:
            # The coarse levels are made while the fine ones are written.
            _write_levels(store, path, provenance, beside.submit(store.complete))
        link_levels(path)
        _sync(path)
    except OSError as error:
        path.unlink(missing_ok=True)
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"{path}: cannot be written ({error.strerror or error}); free some space or check the folder, "
            "then run the same command again, it continues"
        ) from None
    return path


def finish_ome_tiff(part: Path, output: Path) -> None:
    """Verifies the complete file at ``part`` and gives it its name; an older ``output`` is replaced.

    Raises:
        OutputError: verification found a problem; ``part`` stays for a look.
        StorageError: the disk refuses.
    """
    report = verify_ome_tiff(part, quick=True, with_sidecar=False)
    if not report.ok:
        raise OutputError(f"{part}: failed its verification: {report.problems[0]}; run the same command again")
    try:
        os.replace(part, output)
        _sync(output.parent)
    except OSError as error:
        raise StorageError(f"{output}: cannot be given its name ({error.strerror})") from None


def _write_levels(store: TileStore, path: Path, provenance: Provenance, completed: Future[None]) -> None:
    levels = store.levels
    with tifffile.TiffWriter(path, bigtiff=True, byteorder="<") as tiff:
        for level, size in enumerate(levels):
            if level == store.layout.patch_level:
                completed.result()
            mpp = provenance.mpp * 2**level
            options: dict[str, Any] = {
                "shape": (*size, 3),
                "dtype": "uint8",
                "tile": (TILE_PX, TILE_PX),
                "planarconfig": "contig",
                "resolution": (1e4 / mpp, 1e4 / mpp),
                "resolutionunit": "centimeter",
                "metadata": None,
                **_compression(store.layout),
            }
            if level == 0:
                options |= {"description": ome_xml(size, provenance), "subifds": len(levels) - 1}
                options |= {"software": "wsi-ihc"}
            else:
                options |= {"subfiletype": 1, "software": False}
            tiff.write(store.tiles(level), **options)


def _compression(layout: StoreLayout) -> dict[str, Any]:
    """The tags that describe what TileCodec writes."""
    match layout.compression:
        case "jpeg":
            return {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 2)}
        case "deflate":
            return {"compression": "adobe_deflate", "photometric": "rgb", "predictor": True}


def _sync(path: Path) -> None:
    """Waits until the file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
