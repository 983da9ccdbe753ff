"""The polygons in GeoJSON from QuPath: which to stain, which to leave out, and which objects are skipped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wsi_ihc.errors import SettingsError
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.tissue.geojson_text import read_json
from wsi_ihc.tissue.outlines import Ring, TooComplexError, fill
from wsi_ihc.tissue.shapes import Mask

Polygon = list[Ring]
"""An outline, then its holes."""
MOST_POLYGONS = 50_000
"""Most polygons of a file. A slide has some hundred pieces of tissue; a hundred thousand polygons are its cells."""
OVERHANG = 0.01
"""Share of the slide's side by which an annotation drawn by hand may reach over the edge."""
LEFT_OUT = ("ignore*", "exclude", "artifact", "artefact", "artifact*")
"""QuPath classes of areas to leave out, alone or as a part of a derived class ("Tumor: Ignore*")."""


@dataclass
class Drawn:
    """The polygons of a document, in level 0 pixels."""

    included: list[Polygon] = field(default_factory=list)
    excluded: list[Polygon] = field(default_factory=list)
    lines: int = 0
    """Number of points and lines, which enclose nothing."""
    empty: int = 0
    """Number of objects without a geometry."""
    missing_cores: int = 0
    """Number of TMA cores that are marked as missing."""

    @property
    def notices(self) -> tuple[str, ...]:
        """A line for each kind of object that was skipped."""
        notices = []
        if self.lines:
            notices.append(f"{self.lines} points or lines enclose nothing and were skipped")
        if self.empty:
            notices.append(f"{self.empty} objects without a geometry were skipped")
        if self.missing_cores:
            notices.append(f"{self.missing_cores} TMA cores are marked as missing and were skipped")
        return tuple(notices)


def features_of(path: Path) -> Iterator[dict[str, Any]]:
    """The features, or bare geometries, of a GeoJSON file, one by one.

    Raises:
        SettingsError: the file cannot be read, or is no GeoJSON.
    """
    return _features(read_json(path), path)


def _features(document: Any, path: Path) -> Iterator[dict[str, Any]]:
    match document:
        case {"type": "FeatureCollection", "features": list(inner)} | list(inner):
            for feature in inner:
                yield from _features(feature, path)
        case {"type": "Feature" | "Polygon" | "MultiPolygon" | "GeometryCollection"}:
            yield document
        case _:
            raise SettingsError(f"{path}: JSON, but not GeoJSON features as QuPath exports them")


def drawn(found: Iterable[dict[str, Any]], path: Path) -> Drawn:
    """The polygons of all features.

    Raises:
        SettingsError: an unknown geometry, corners that are no numbers, or too many polygons.
    """
    result = Drawn()
    for feature in found:
        geometry = feature.get("geometry", feature)
        if geometry is None:
            result.empty += 1
            continue
        if _is_missing_core(feature):
            result.missing_cores += 1
            continue
        polygons, lines = polygons_of(geometry, path)
        result.lines += lines
        (result.excluded if is_excluded(feature) else result.included).extend(polygons)
        if len(result.included) + len(result.excluded) > MOST_POLYGONS:
            raise SettingsError(
                f"{path}: more than {MOST_POLYGONS} polygons; export the annotations of tissue, not cells"
            )
    return result


def polygons_of(geometry: Any, path: Path) -> tuple[list[Polygon], int]:
    """Polygons of ``geometry`` in level 0 pixels, and the number of its points and lines; None has neither.

    Raises:
        SettingsError: an unknown geometry, or corners that are no numbers.
    """
    match geometry:
        case None:
            return [], 0
        case {"type": "Polygon", "coordinates": list(rings)}:
            return [_rings(rings, path)], 0
        case {"type": "MultiPolygon", "coordinates": list(polygons)}:
            return [_rings(rings, path) for rings in polygons], 0
        case {"type": "GeometryCollection", "geometries": list(parts)}:
            found = [polygons_of(part, path) for part in parts]
            return [polygon for polygons, _ in found for polygon in polygons], sum(lines for _, lines in found)
        case {"type": "Point" | "MultiPoint" | "LineString" | "MultiLineString"}:
            return [], 1
    raise SettingsError(f"{path}: a feature without a geometry that GeoJSON knows")


def paint(pixels: Mask, polygons: Sequence[Polygon], value: bool, *, scale: float, path: Path) -> None:
    """Sets the mask ``pixels`` inside ``polygons`` to ``value``. ``scale`` is level 0 pixels per mask pixel.

    Raises:
        SettingsError: an outline is so complex that filling it would take minutes.
    """
    try:
        fill(pixels, [[ring / scale for ring in rings] for rings in polygons], value)
    except TooComplexError as error:
        raise SettingsError(f"{path}: {error}; simplify the outlines in QuPath") from None


def check_inside(polygons: Sequence[Polygon], size: Size, scale: float, path: Path) -> None:
    """Refuses polygons that reach outside a slide of ``size`` working pixels, ``scale`` level 0 pixels each.

    Raises:
        SettingsError: the message states how far they reach.
    """
    corners = np.concatenate([ring for rings in polygons for ring in rings])
    whole = np.array([size.width, size.height]) * scale
    low, high = corners.min(axis=0), corners.max(axis=0)
    if (low < -OVERHANG * whole).any() or (high > (1 + OVERHANG) * whole).any():
        raise SettingsError(
            f"{path}: outlines reach from ({low[0]:.0f}, {low[1]:.0f}) to ({high[0]:.0f}, {high[1]:.0f}), outside the "
            f"slide of {whole[0]:.0f} x {whole[1]:.0f} pixels; were they drawn on another image?"
        )


def _rings(rings: Any, path: Path) -> Polygon:
    try:
        arrays = [np.array([point[:2] for point in ring], np.float64) for ring in rings]
    except (TypeError, ValueError, OverflowError):
        arrays = []
    if not arrays or not all(_is_ring(ring) for ring in arrays):
        raise SettingsError(f"{path}: a polygon whose corners are not pairs of numbers")
    return arrays


def _is_ring(ring: Ring) -> bool:
    return ring.ndim == 2 and ring.shape[1] == 2 and len(ring) >= 3 and bool(np.isfinite(ring).all())


def is_excluded(feature: dict[str, Any]) -> bool:
    """Whether the class of a feature, or a part of a derived class, is one of ``LEFT_OUT``."""
    match feature.get("properties"):
        case {"classification": {"name": str(name)}}:
            names = name.split(":")
        case {"classification": {"names": list(names)}}:
            pass
        case {"classification": str(name)}:
            names = name.split(":")
        case _:
            return False
    return any(str(name).strip().lower() in LEFT_OUT for name in names)


def _is_missing_core(feature: dict[str, Any]) -> bool:
    """Whether a feature is a TMA core that somebody has marked as missing in QuPath."""
    match feature.get("properties"):
        case {"isMissing": True} | {"missing": True} | {"metadata": {"isMissing": True | "true" | "True"}}:
            return True
    return False
