"""Tissue as QuPath reads and writes it: GeoJSON in level 0 pixels, zero at the slide's top left corner."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wsi_ihc.errors import SettingsError
from wsi_ihc.machine.atomic import write_atomically
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.tissue.mask import TissueMask
from wsi_ihc.tissue.outlines import Ring, fill, outlines

logger = logging.getLogger(__name__)

TISSUE_CLASS = {"name": "Tissue", "color": [0, 170, 85]}
# Deterministic ids: the same mask gives the same file.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://wsi-ihc/tissue")
_OVERHANG = 0.01
"""Of the slide's side: an annotation drawn by hand may reach that far over its edge."""

Polygon = list[Ring]


def write_geojson(mask: TissueMask, path: str | Path, *, scale: float) -> None:
    """Writes one annotation of class Tissue per piece of tissue, the longest outline first.

    ``scale`` is level 0 pixels per working pixel (``SlideView.scale``). Reading the file back on the same grid gives
    the same mask, pixel for pixel.

    Raises:
        StorageError: the file cannot be written.
    """
    pieces = sorted(outlines(mask.pixels), key=lambda rings: -sum(len(ring) for ring in rings))
    closed = ([_closed_ring(_on_plane(ring, mask) * scale) for ring in rings] for rings in pieces)
    # Outlines fit an image of another resolution of the same slide once they are scaled by the ratio of the sizes.
    slide = {"slide_width": str(round(mask.size.width * scale)), "slide_height": str(round(mask.size.height * scale))}
    features = [_feature(rings, number, slide) for number, rings in enumerate(closed, start=1)]
    text = json.dumps({"type": "FeatureCollection", "features": features}, separators=(",", ":"))
    write_atomically(Path(path), text.encode())


def read_geojson(path: str | Path, *, size: Size, scale: float, downsample: float) -> TissueMask:
    """The mask that the polygons in ``path`` draw on a working plane of ``size``.

    Understands what QuPath exports: a FeatureCollection, a bare list of features, one feature or geometry; polygons,
    multipolygons and collections with holes. Objects of class ``Ignore*`` or ``Exclude`` are cut out of the others;
    points and lines are skipped with a notice.

    Args:
        path: the file.
        size: of the working plane.
        scale: level 0 pixels per working pixel.
        downsample: working pixels per pixel of the mask.

    Raises:
        SettingsError: not such a file, nothing of the slide in its polygons, or they were drawn on another slide.
    """
    included: list[Polygon] = []
    excluded: list[Polygon] = []
    skipped = 0
    for feature in features_of(path):
        _check_slide(feature, size, scale, path)
        polygons, others = polygons_of(feature.get("geometry", feature), path)
        skipped += others
        (excluded if is_excluded(feature) else included).extend(polygons)
    if skipped:
        logger.warning("%s: %d points or lines enclose nothing and were skipped", path, skipped)
    if not included:
        raise SettingsError(f"{path}: no polygons to stain; export annotations from QuPath, or use --tissue auto")
    check_inside(included, size, scale, path)
    shape = max(1, round(size.height / downsample)), max(1, round(size.width / downsample))
    pixels = np.zeros(shape, bool)
    for polygons, value in ((included, True), (excluded, False)):
        fill(pixels, [[ring / (scale * downsample) for ring in rings] for rings in polygons], value)
    if not pixels.any():
        raise SettingsError(
            f"{path}: its polygons are too small, or all cut out by Ignore*; draw what shall be stained"
        )
    return TissueMask(pixels, downsample, size)


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
    """Corners in working pixels; what reaches the last mask pixel's edge reaches the plane's."""
    last = np.array(mask.pixels.shape[::-1], np.float64)
    return np.where(ring == last, (mask.size.width, mask.size.height), ring * mask.downsample)


def _closed_ring(ring: Ring) -> list[list[float]]:
    corners: list[list[float]] = ring.round(2).tolist()
    return [*corners, corners[0]]


def _parse(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise SettingsError(
            f"{path}: cannot read the tissue outlines ({error.strerror}); give auto, none or a GeoJSON file"
        ) from None
    except (ValueError, RecursionError):
        raise SettingsError(f"{path}: not GeoJSON; in QuPath: File, Export objects as GeoJSON") from None


def features_of(path: str | Path) -> Iterator[dict[str, Any]]:
    """The features of a GeoJSON file, one by one.

    Raises:
        SettingsError: it cannot be read, or is no GeoJSON.
    """
    return _features(_parse(path), path)


def _features(document: Any, path: str | Path) -> Iterator[dict[str, Any]]:
    match document:
        case {"type": "FeatureCollection", "features": list(features)} | list(features):
            for feature in features:
                yield from _features(feature, path)
        case {"type": "Feature" | "Polygon" | "MultiPolygon" | "GeometryCollection"}:
            yield document
        case _:
            raise SettingsError(f"{path}: JSON, but not GeoJSON features as QuPath exports them")


def polygons_of(geometry: Any, path: str | Path) -> tuple[list[Polygon], int]:
    """Polygons of ``geometry`` in level 0 pixels, and how many of its parts are no areas."""
    match geometry:
        case {"type": "Polygon", "coordinates": list(rings)}:
            return [_rings(rings, path)], 0
        case {"type": "MultiPolygon", "coordinates": list(polygons)}:
            return [_rings(rings, path) for rings in polygons], 0
        case {"type": "GeometryCollection", "geometries": list(parts)}:
            found = [polygons_of(part, path) for part in parts]
            return [polygon for polygons, _ in found for polygon in polygons], sum(others for _, others in found)
        case {"type": "Point" | "MultiPoint" | "LineString" | "MultiLineString"}:
            return [], 1
    raise SettingsError(f"{path}: a feature without a geometry that GeoJSON knows")


def _rings(rings: Any, path: str | Path) -> Polygon:
    try:
        arrays = [np.array([point[:2] for point in ring], np.float64) for ring in rings]
    except (TypeError, ValueError):
        arrays = []
    if not arrays or not all(_is_ring(ring) for ring in arrays):
        raise SettingsError(f"{path}: a polygon whose corners are not pairs of numbers")
    return arrays


def _is_ring(ring: Ring) -> bool:
    return ring.ndim == 2 and ring.shape[1] == 2 and len(ring) >= 3 and bool(np.isfinite(ring).all())


def is_excluded(feature: dict[str, Any]) -> bool:
    """Whether the feature is of a class that is cut out of the others."""
    match feature.get("properties"):
        case {"classification": {"name": str(name)}}:
            return name.lower() in ("ignore*", "exclude")
        case {"classification": {"names": [str(name), *_]}}:
            return name.lower() in ("ignore*", "exclude")
    return False


def _check_slide(feature: dict[str, Any], size: Size, scale: float, path: str | Path) -> None:
    """Refuse outlines that :func:`write_geojson` made for a slide of another size; QuPath keeps its note of that."""
    match feature.get("properties"):
        case {"metadata": {"slide_width": str(width), "slide_height": str(height)}} if (width + height).isdecimal():
            noted, own = np.array([float(width), float(height)]), np.array([size.width, size.height]) * scale
            if (np.abs(noted - own) > _OVERHANG * own + scale).any():
                raise SettingsError(
                    f"{path}: made for a slide of {width} x {height} pixels, this one has {own[0]:.0f} x {own[1]:.0f}; "
                    "give the outlines of this slide"
                )


def check_inside(polygons: list[Polygon], size: Size, scale: float, path: str | Path) -> None:
    """Refuses outlines that reach outside the slide: they were drawn on another image.

    Raises:
        SettingsError: naming where they reach.
    """
    corners = np.concatenate([ring for rings in polygons for ring in rings])
    whole = np.array([size.width, size.height]) * scale
    low, high = corners.min(axis=0), corners.max(axis=0)
    if (low < -_OVERHANG * whole).any() or (high > (1 + _OVERHANG) * whole).any():
        raise SettingsError(
            f"{path}: outlines reach from ({low[0]:.0f}, {low[1]:.0f}) to ({high[0]:.0f}, {high[1]:.0f}), outside the "
            f"slide of {whole[0]:.0f} x {whole[1]:.0f} pixels; were they drawn on another image?"
        )
