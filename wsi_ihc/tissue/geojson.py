"""Tissue as GeoJSON for QuPath and from it: level 0 pixels, with zero at the top left corner of the slide."""

from __future__ import annotations

import json
import logging
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from wsi_ihc.errors import SettingsError
from wsi_ihc.machine.atomic import write_atomically
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.tissue.geojson_features import OVERHANG, check_inside, drawn, features_of, paint
from wsi_ihc.tissue.mask import TissueMask
from wsi_ihc.tissue.outlines import Ring, outlines

logger = logging.getLogger(__name__)

TISSUE_CLASS = {"name": "Tissue", "color": [0, 170, 85]}
# Deterministic ids: the same mask gives the same file.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://wsi-ihc/tissue")


def write_geojson(mask: TissueMask, path: str | Path, *, scale: float) -> None:
    """Writes one annotation of class Tissue for each piece of tissue, the longest outline first.

    ``scale`` is level 0 pixels per working pixel (``SlideView.scale``). ``read_geojson`` on the same grid returns the
    same mask, pixel for pixel.

    Raises:
        StorageError: the file cannot be written.
    """
    pieces = sorted(outlines(mask.pixels), key=lambda rings: -sum(len(ring) for ring in rings))
    closed = ([_closed_ring(_on_plane(ring, mask) * scale) for ring in rings] for rings in pieces)
    # With the size of the slide, outlines can be scaled to an image of the same slide at another resolution.
    slide = {"slide_width": str(round(mask.size.width * scale)), "slide_height": str(round(mask.size.height * scale))}
    features = [_feature(rings, number, slide) for number, rings in enumerate(closed, start=1)]
    text = json.dumps({"type": "FeatureCollection", "features": features}, separators=(",", ":"))
    write_atomically(Path(path), text.encode())


def read_geojson(path: str | Path, *, size: Size, scale: float, downsample: float) -> TissueMask:
    """The mask of the polygons in ``path``, on a working plane of ``size``.

    It reads all exports of QuPath, also in a .zip or .gz: a FeatureCollection, a bare list of features, one feature or
    geometry; polygons, multipolygons and collections, with holes. Objects of class ``Ignore*``, ``Exclude`` or
    ``Artifact`` are cut out of the others. Points, lines, objects without a geometry and TMA cores that are marked as
    missing are skipped, with a notice in the mask.

    Args:
        path: the GeoJSON file.
        size: size of the working plane, pixels.
        scale: level 0 pixels per working pixel.
        downsample: working pixels per pixel of the mask.

    Raises:
        SettingsError: no GeoJSON, no polygon inside the slide, or outlines of another slide.
    """
    path = Path(path)
    found = list(features_of(path))
    for feature in found:
        _check_slide(feature, size, scale, path)
    shapes = drawn(found, path)
    for notice in shapes.notices:
        logger.warning("%s: %s", path, notice)
    if not shapes.included:
        raise SettingsError(f"{path}: no polygons to stain; export annotations from QuPath, or use --tissue auto")
    check_inside(shapes.included, size, scale, path)
    pixels = np.zeros((max(1, round(size.height / downsample)), max(1, round(size.width / downsample))), bool)
    for polygons, value in ((shapes.included, True), (shapes.excluded, False)):
        paint(pixels, polygons, value, scale=scale * downsample, path=path)
    if not pixels.any():
        raise SettingsError(
            f"{path}: its polygons are too small, or all cut out by Ignore*; draw what shall be stained"
        )
    notices = tuple(f"{path.name}: {notice}" for notice in shapes.notices)
    return TissueMask(pixels, downsample, size, notices)


def _feature(rings: list[list[list[float]]], number: int, metadata: dict[str, str]) -> dict[str, Any]:
    properties = {
        "objectType": "annotation",
        "name": f"Tissue {number}",
        "classification": TISSUE_CLASS,
        "metadata": metadata,
    }
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(_NAMESPACE, json.dumps(rings))),
        "geometry": {"type": "Polygon", "coordinates": rings},
        "properties": properties,
    }


def _on_plane(ring: Ring, mask: TissueMask) -> Ring:
    """Corners in working pixels; a corner on the edge of the last mask pixel lies on the edge of the plane."""
    last = np.array(mask.pixels.shape[::-1], np.float64)
    return np.where(ring == last, (mask.size.width, mask.size.height), ring * mask.downsample)


def _closed_ring(ring: Ring) -> list[list[float]]:
    corners: list[list[float]] = ring.round(2).tolist()
    return [*corners, corners[0]]


def _check_slide(feature: dict[str, Any], size: Size, scale: float, path: Path) -> None:
    """Refuses outlines that :func:`write_geojson` wrote for a slide of another size; QuPath keeps that metadata.

    Raises:
        SettingsError: the sizes differ.
    """
    match feature.get("properties"):
        case {"metadata": {"slide_width": str(width), "slide_height": str(height)}} if (width + height).isdecimal():
            noted, own = np.array([float(width), float(height)]), np.array([size.width, size.height]) * scale
            if (np.abs(noted - own) > OVERHANG * own + scale).any():
                raise SettingsError(
                    f"{path}: made for a slide of {width} x {height} pixels, this one has {own[0]:.0f} x {own[1]:.0f}; "
                    "give the outlines of this slide"
                )
