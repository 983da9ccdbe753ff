"""Regions that a person has drawn and named: one mask for each name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wsi_ihc.errors import SettingsError
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.tissue.geojson_features import check_inside, features_of, is_excluded, paint, polygons_of
from wsi_ihc.tissue.mask import TissueMask

MOST = 50
"""Most names: a table of more is not readable."""


def read_regions(path: Path, *, size: Size, scale: float, downsample: float) -> dict[str, TissueMask]:
    """The masks of the annotations in the GeoJSON file ``path``, by name, on a working plane of ``size``.

    A region is named by the name of its annotation, else by its class, else by its number. Annotations with the same
    name are one region. Arguments and formats are those of :func:`wsi_ihc.tissue.read_geojson`.

    Raises:
        SettingsError: no such file, no polygons in it, or more than ``MOST`` names.
    """
    drawn: dict[str, Any] = {}
    for number, feature in enumerate(features_of(path), start=1):
        polygons, _ = polygons_of(feature.get("geometry", feature), path)
        if polygons and not is_excluded(feature):
            drawn.setdefault(_name(feature, number), []).extend(polygons)
    if not drawn:
        raise SettingsError(f"{path}: no polygons to read; export annotations from QuPath as GeoJSON")
    if len(drawn) > MOST:
        raise SettingsError(f"{path}: {len(drawn)} names of regions, more than {MOST}; give their class one name")
    check_inside([polygon for polygons in drawn.values() for polygon in polygons], size, scale, path)
    shape = max(1, round(size.height / downsample)), max(1, round(size.width / downsample))
    masks = {}
    for name, polygons in drawn.items():
        pixels = np.zeros(shape, bool)
        paint(pixels, polygons, True, scale=scale * downsample, path=path)
        masks[name] = TissueMask(pixels, downsample, size)
    return masks


def _name(feature: dict[str, Any], number: int) -> str:
    match feature.get("properties"):
        case {"name": str(name)} if name.strip():
            return name.strip()
        case {"classification": {"name": str(name)}} if name.strip():
            return name.strip()
    return f"region {number}"
