"""Writes encoded tiles as one pyramidal OME-TIFF that every reader opens with all its levels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tifffile

from wsi_ihc.errors import StorageError
from wsi_ihc.machine.atomic import sync
from wsi_ihc.output.ometiff.bigtiff import link_levels
from wsi_ihc.output.ometiff.omexml import ome_xml
from wsi_ihc.output.provenance import Provenance
from wsi_ihc.pyramid.pyramid import TilePyramid
from wsi_ihc.pyramid.tiff import write_level


def write_ome_tiff(pyramid: TilePyramid, path: Path, provenance: Provenance) -> Path:
    """Writes ``pyramid`` as a BigTIFF at ``path``, usually ``OUT.ome.tiff.part``, and syncs it to the disk.

    Tiles are copied as they are, one at a time. The same tiles and provenance give the same bytes. Returns ``path``.

    Raises:
        StorageError: the disk is full, read-only or gone, or a tile is damaged. The half-written file is removed.
    """
    try:
        _write_levels(pyramid, path, provenance)
        link_levels(path)
        sync(path)
    except OSError as error:
        path.unlink(missing_ok=True)
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"{path}: cannot be written ({error.strerror or error}); free some space or check the folder, "
            "then run the same command again, it continues"
        ) from None
    return path


def _write_levels(pyramid: TilePyramid, path: Path, provenance: Provenance) -> None:
    with tifffile.TiffWriter(path, bigtiff=True, byteorder="<") as tiff:
        for level, size in enumerate(pyramid.levels):
            tags: dict[str, Any] = {"software": False}
            if level == 0:
                xml = ome_xml(size, provenance, channels=pyramid.codec.channels)
                tags = {"software": "wsi-ihc", "description": xml, "subifds": len(pyramid.levels) - 1}
            write_level(tiff, pyramid, level, mpp=provenance.mpp, **tags)
