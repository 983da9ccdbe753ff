"""The report as HTML: one file without scripts, under 300 kB."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import jinja2
import numpy as np

from wsi_ihc import RESEARCH_USE_ONLY
from wsi_ihc.measures.readout import CUTS, GRADES, Readout
from wsi_ihc.measures.stain import HISTOGRAM_BINS, HISTOGRAM_OD
from wsi_ihc.output.provenance import Provenance
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.tissue import TissueMask
from wsi_ihc.viewer.page import page_template
from wsi_ihc.viewer.report.pictures import Picture
from wsi_ihc.viewer.report.scan import Field

LARGEST_BYTES = 300_000
_QUALITIES = (85, 75, 65, 55, 45, 35, 25, 15)
"""Of JPEG: the first that makes the page small enough."""
_BARS = 60
"""Bars of the histogram, from 0 to ``_BARS_OD``."""
_BARS_OD = 1.2


@dataclass(frozen=True)
class FieldPictures:
    """A field of interest and its pictures."""

    kind: str
    field: Field
    he: Picture | None
    ihc: Picture


@dataclass(frozen=True)
class Contents:
    """Everything that the page says."""

    output: str
    provenance: Provenance
    size: Size
    """Of the output, pixels."""
    he: Picture | None
    ihc: Picture
    tissue: TissueMask | None
    fields: Sequence[FieldPictures]
    whole: Readout
    regions: Mapping[str, Readout]
    notices: Sequence[str]
    run: Mapping[str, Any]
    card: Mapping[str, Any]


def render(contents: Contents) -> str:
    """The page. Pictures are encoded as well as the size of the page allows."""
    for quality in _QUALITIES:
        page = _template().render(**_values(contents, quality))
        if len(page.encode()) <= LARGEST_BYTES:
            break
    return page


def _values(contents: Contents, quality: int) -> dict[str, Any]:
    made = contents.provenance
    return {
        "mark": f"SYNTHETIC. {RESEARCH_USE_ONLY}",
        "title": made.source_name,
        "stain": made.stain,
        "output": contents.output,
        "made": made,
        "size_mm": tuple(side * made.mpp / 1000 for side in contents.size[::-1]),
        "sides": list(_sides(contents, quality)),
        "fields": [_field(number, each, made, quality) for number, each in enumerate(contents.fields, start=1)],
        "field_um": contents.fields[0].field.place.width * made.mpp if contents.fields else 0,
        "rows": list(_readout_rows(contents)),
        "grades": GRADES,
        "cuts": CUTS,
        "bars": _bars(contents.whole),
        "bars_od": _BARS_OD,
        "notices": contents.notices,
        "tissue_from": "the H&E" if contents.tissue else "the colour of the output, for the H&E was not found",
        "findings": dict(_findings(contents.run)),
        "facts": made.entries(),
        "card": contents.card,
    }


def _sides(contents: Contents, quality: int) -> Iterator[dict[str, Any]]:
    """Both thumbnails with what is drawn on them, in units of the thumbnail's pixels."""
    made = contents.provenance
    pictures = [("H&E", contents.he, False), (f"Virtual {made.stain}", contents.ihc, True)]
    for name, picture, synthetic in pictures:
        if picture is None:
            continue
        scale = picture.size.width / contents.size.width
        yield {
            "name": name,
            "synthetic": synthetic,
            "source": picture.data_uri(quality),
            "width": picture.size.width,
            "height": picture.size.height,
            "outline": _outline(contents.tissue, scale) if contents.tissue else "",
            "bar": _bar(made.mpp / scale, picture.size.width),
            "boxes": [_box(number, each, scale) for number, each in enumerate(contents.fields, start=1)],
        }


def _outline(tissue: TissueMask, scale: float) -> str:
    """The tissue as an SVG path; ``scale`` is thumbnail pixels per pixel of the output."""
    contours, _ = cv2.findContours(tissue.pixels.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    factor = tissue.downsample * scale
    drawn = (cv2.approxPolyDP(contour, 0.7 / factor, closed=True)[:, 0] for contour in contours)
    rings = ((ring.astype(np.float64) + 0.5) * factor for ring in drawn if len(ring) > 2)
    return "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in ring) + "Z" for ring in rings)


def _bar(um_per_px: float, width_px: float) -> dict[str, Any]:
    """A round length of at most a quarter of the picture."""
    longest = width_px / 4 * um_per_px
    power = 10 ** math.floor(math.log10(longest))
    length = next(factor * power for factor in (5, 2, 1) if factor * power <= longest)
    text = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    return {"px": length / um_per_px, "text": text}


def _box(number: int, each: FieldPictures, scale: float) -> dict[str, Any]:
    place = each.field.place
    return {
        "number": number,
        "x": place.left * scale,
        "y": place.top * scale,
        "width": max(4.0, place.width * scale),
        "height": max(4.0, place.height * scale),
    }


def _field(number: int, each: FieldPictures, made: Provenance, quality: int) -> dict[str, Any]:
    place = each.field.place
    return {
        "number": number,
        "kind": each.kind,
        "he": each.he.data_uri(quality) if each.he else "",
        "ihc": each.ihc.data_uri(quality),
        "width": place.width,
        "height": place.height,
        "bar": _bar(made.mpp, place.width),
        "score": each.field.readout.score,
        "x": round(place.left * made.scale + made.offset_x),
        "y": round(place.top * made.scale + made.offset_y),
    }


def _readout_rows(contents: Contents) -> Iterator[dict[str, Any]]:
    area = (contents.provenance.mpp / 1000) ** 2
    if contents.whole.pixels:
        yield _row("all tissue", contents.whole, area)
    for name, readout in contents.regions.items():
        yield _row(name, readout, area)


def _row(name: str, readout: Readout, area_mm2: float) -> dict[str, Any]:
    return {
        "name": name,
        "area": readout.pixels * area_mm2,
        "empty": readout.pixels == 0,
        "shares": readout.shares,
        "positive": readout.positive_share,
        "score": readout.score,
    }


def _bars(readout: Readout) -> list[dict[str, float]]:
    """Shares of the tissue by DAB optical density, the densest bar 1; the last bar holds all that is darker."""
    if not readout.pixels:
        return []
    bin_od = HISTOGRAM_OD / HISTOGRAM_BINS
    bar = np.minimum((np.arange(HISTOGRAM_BINS) + 0.5) * bin_od / _BARS_OD * _BARS, _BARS - 1).astype(np.intp)
    shares = np.bincount(bar, weights=readout.histogram, minlength=_BARS) / readout.pixels
    # The negative peak would hide all others: heights by square root.
    heights = np.sqrt(shares / shares.max())
    return [{"height": float(height), "share": float(share)} for height, share in zip(heights, shares, strict=True)]


def _findings(run: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What the run measured on itself, where it did."""
    for name in ("quality", "seams", "confidence"):
        match run.get(name):
            case dict(figures):
                yield name, {str(key).replace("_", " "): value for key, value in figures.items()}
            case None:
                continue
            case figure:
                yield name, {name: figure}


@cache
def _template() -> jinja2.Template:
    return page_template("report", "report.html.j2")
