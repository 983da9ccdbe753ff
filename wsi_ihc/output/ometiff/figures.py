"""Figures of a sound output: how many levels and tiles it has, how large they are, at which scale."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import tifffile

from wsi_ihc.output.ometiff.omexml import OME, provenance_entries


def figures(path: Path) -> dict[str, str]:
    """Size, levels, tiles and pixel size of an OME-TIFF that passed its verification, each in a few words."""
    with tifffile.TiffFile(path) as tiff:
        levels = [level.keyframe for level in tiff.series[0].levels]
        xml = tiff.ome_metadata or ""
    tiles = sum(len(level.dataoffsets) for level in levels)
    finest, coarsest = levels[0], levels[-1]
    return {
        "size": f"{finest.imagewidth} x {finest.imagelength} px, {path.stat().st_size / 1e6:.1f} MB",
        "levels": f"{len(levels)}, down to {coarsest.imagewidth} x {coarsest.imagelength} px",
        "tiles": f"{tiles} of {finest.tilewidth} px, {tifffile.COMPRESSION(finest.compression).name.lower()}",
        "pixel size": _pixel_size(xml),
    }


def stated_notices(path: Path) -> tuple[str, ...]:
    """The notices in the provenance of the file, one line each; ``path`` has passed its verification."""
    with tifffile.TiffFile(path) as tiff:
        entries = provenance_entries(ElementTree.fromstring(tiff.ome_metadata or "<OME/>"))
    return tuple(text for name, text in entries.items() if name.startswith("notices."))


def _pixel_size(xml: str) -> str:
    pixels = ElementTree.fromstring(xml).find(f".//{{{OME}}}Pixels")
    return f"{float(pixels.get('PhysicalSizeX', 'nan')):.4g} um/px" if pixels is not None else "not stated"
