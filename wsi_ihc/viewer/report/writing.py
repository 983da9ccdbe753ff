"""From an output to its report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from wsi_ihc.config import SlideSettings, TissueSettings
from wsi_ihc.conversion.account import notices_in
from wsi_ihc.errors import OutputError
from wsi_ihc.machine.atomic import write_atomically
from wsi_ihc.output.provenance import Provenance, sidecar_path
from wsi_ihc.pyramid.geometry import Region
from wsi_ihc.pyramid.pyramid import TilePyramid
from wsi_ihc.slides import SlideReader, SlideView, open_slide
from wsi_ihc.tissue import TissueMask, tissue_from_thumbnail
from wsi_ihc.tissue.finding import ASSUMED_MPP, read_thumbnail
from wsi_ihc.tissue.regions import read_regions
from wsi_ihc.viewer.finding import slide_of
from wsi_ihc.viewer.outputs import Output, open_output
from wsi_ihc.viewer.overview import Overview
from wsi_ihc.viewer.report.choosing import choose_fields
from wsi_ihc.viewer.report.page import Contents, FieldPictures, render
from wsi_ihc.viewer.report.pictures import THUMBNAIL_PX, Picture, read, shrunk, whole_picture
from wsi_ihc.viewer.report.scan import Field, Scan, scan

logger = logging.getLogger(__name__)


def report_path(output: Path) -> Path:
    """``slide_ihc.html`` for ``slide_ihc.ome.tiff``."""
    return sidecar_path(output).with_suffix(".html")


def write_report(
    output: Path,
    page: Path | None = None,
    *,
    slide: Path | None = None,
    regions: Path | None = None,
    card: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes the report of ``output`` and returns its path, by default beside it.

    Args:
        output: a finished output of wsi-ihc.
        page: the file to write.
        slide: the H&E; looked for beside the output where it is not given. Without it the report shows one side.
        regions: GeoJSON; the read-out is given for each of its annotations too.
        card: of the generator, where it is at hand.
        overwrite: whether ``page`` may be replaced.

    Raises:
        OutputError: ``page`` exists.
        SettingsError: the regions cannot be used.
        SlideError: the output was not made by wsi-ihc, or a file cannot be read.
        StorageError: the page cannot be written.
    """
    page = page or report_path(output)
    if page.exists() and not overwrite:
        raise OutputError(f"{page}: exists already; give --overwrite to replace it, or another name with -o")
    opened = open_output(output)
    found = slide or slide_of(output)
    if found is None:
        contents = _contents(opened, None, regions, card)
    else:
        with closing(open_slide(found, SlideSettings(mpp=opened.provenance.source_mpp))) as reader:
            contents = _contents(opened, _Source(reader, opened.provenance), regions, card)
    write_atomically(page, render(contents).encode())
    return page


@dataclass(frozen=True)
class _Source:
    """The H&E of the output."""

    slide: SlideReader
    provenance: Provenance

    @cached_property
    def overview(self) -> Overview:
        overview = Overview.of(self.slide)
        overview.read(Event())
        return overview

    def thumbnail(self) -> Picture:
        """The whole slide. A small one has an overview that is smaller than its thumbnail: it is read itself."""
        scale = max(1.0, max(self.slide.levels[0].size) / THUMBNAIL_PX)
        if max(self.overview.view.size) >= THUMBNAIL_PX:
            return Picture(shrunk(self.overview.pixels))
        return Picture(read_thumbnail(SlideView.reduced(self.slide, scale)))

    def tissue(self, pyramid: TilePyramid) -> TissueMask:
        """As ``convert`` finds it, but without its margin of glass, on the plane of the output."""
        view = self.overview.view
        mpp = (self.slide.mpp or ASSUMED_MPP) * view.scale
        pixels = tissue_from_thumbnail(self.overview.pixels, mpp, TissueSettings())
        return TissueMask(pixels, view.scale / self.provenance.scale, pyramid.levels[0])

    def read(self, place: Region) -> Picture:
        """The H&E under ``place`` of the output."""
        scale = self.provenance.scale
        view = SlideView.reduced(self.slide, scale) if scale > 1 else SlideView.at(self.slide, None)
        return Picture(view.read(place))


def _contents(output: Output, source: _Source | None, regions: Path | None, card: Mapping[str, Any] | None) -> Contents:
    made, pyramid = output.provenance, output.pyramids["stained"]
    size = pyramid.levels[0]
    tissue = source.tissue(pyramid) if source else None
    named = read_regions(regions, size=size, scale=made.scale, downsample=_downsample(made)) if regions else {}
    found = scan(pyramid, tissue, _glass(made), named) if is_brown(made) else Scan()
    chosen = choose_fields(found.fields, _doubt(output))
    return Contents(
        output=output.path.name,
        provenance=made,
        size=size,
        he=source.thumbnail() if source else None,
        ihc=Picture(whole_picture(pyramid)),
        tissue=tissue,
        fields=[_field_pictures(name, field, source, pyramid) for name, field in chosen.items()],
        whole=found.whole,
        regions=found.regions,
        notices=notices_in(output.run),
        run=output.run,
        card=card or {},
    )


def is_brown(made: Provenance) -> bool:
    """Whether the stain is made with DAB, so that a DAB score of it says anything; ``identity`` shows the H&E."""
    return not made.stain.lower().startswith("none")


def _field_pictures(name: str, field: Field, source: _Source | None, pyramid: TilePyramid) -> FieldPictures:
    he = source.read(field.place) if source else None
    return FieldPictures(name, field, he, Picture(read(pyramid, 0, field.place)))


def _downsample(made: Provenance) -> float:
    """Regions are drawn at 4 um/px: finer than the hand that drew them."""
    return max(1.0, 4.0 / made.mpp)


def _glass(made: Provenance) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(made.glass.removeprefix("#"))
    return red, green, blue


def _doubt(output: Output) -> Callable[[Field], float] | None:
    """How unsure the generator was, by the layer ``confidence``; None where the output has none."""
    layer = output.pyramids.get("confidence")
    if layer is None:
        return None
    return lambda field: -float(np.mean(read(layer, 0, field.place)))
