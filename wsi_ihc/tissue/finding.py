"""The tissue of a slide: found, drawn or all of it, as the settings say."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.config import TissueSettings
from wsi_ihc.pyramid.geometry import Region
from wsi_ihc.slides import SlideReader, SlideView
from wsi_ihc.tissue.geojson import read_geojson
from wsi_ihc.tissue.mask import TissueMask
from wsi_ihc.tissue.outline_scale import scale_doubt
from wsi_ihc.tissue.segmentation import tissue_from_thumbnail
from wsi_ihc.tissue.shapes import dilated

logger = logging.getLogger(__name__)

DEFAULTS = TissueSettings()
ASSUMED_MPP = 0.5
"""um/px of a slide of unknown pixel size: a 20x scan. It only sets the scale of closing, margin and dust."""
MAX_THUMBNAIL_PX = 5_500_000
"""Most pixels of a thumbnail; it becomes coarser instead: 18 um/px for a whole glass of 25 x 75 mm."""
STRIP_PX = 64


def find_tissue(view: SlideView, settings: TissueSettings = DEFAULTS) -> TissueMask:
    """The tissue on the plane of ``view``, with ``margin_um`` of glass around it.

    A slide without tissue gives an empty mask. Outlines from a GeoJSON file are used as drawn, without a margin.

    Raises:
        SettingsError: the GeoJSON file cannot be used.
        UnreadableSlideError: the pixels of the slide are damaged.
    """
    match settings.source:
        case "none":
            return TissueMask(np.ones((1, 1), bool), float(max(view.size)), view.size)
        case "auto":
            thumbnail = thumbnail_view(view.slide, settings.mpp)
            mpp = _mpp(view.slide) * thumbnail.scale
            tissue = tissue_from_thumbnail(read_thumbnail(thumbnail), mpp, settings)
            tissue = dilated(tissue, settings.margin_um / mpp)
            return TissueMask(tissue, thumbnail.scale / view.scale, view.size)
        case path:
            downsample = max(1.0, settings.mpp / (_mpp(view.slide) * view.scale))
            mask = read_geojson(Path(path), size=view.size, scale=view.scale, downsample=downsample)
            return _with_doubts(mask, view, settings)


def _with_doubts(drawn: TissueMask, view: SlideView, settings: TissueSettings) -> TissueMask:
    """The mask, with a notice where its outlines seem to be drawn on an image of another size, or in um."""
    thumbnail = thumbnail_view(view.slide, settings.mpp)
    tissue = tissue_from_thumbnail(read_thumbnail(thumbnail), _mpp(view.slide) * thumbnail.scale, settings)
    doubt = scale_doubt(drawn.pixels, tissue, view.slide.mpp)
    if doubt is None:
        return drawn
    logger.warning("%s: %s", settings.source, doubt)
    return replace(drawn, notices=(*drawn.notices, f"{Path(settings.source).name}: {doubt}"))


def thumbnail_view(slide: SlideReader, mpp: float) -> SlideView:
    """The whole slide at ``mpp`` um/px: coarser where that has too many pixels, level 0 where the slide is coarser."""
    if slide.mpp is None:
        logger.info("pixel size not known: tissue is looked for as if it were %g um/px", ASSUMED_MPP)
    pixel, size = _mpp(slide), slide.levels[0].size
    wanted = max(mpp, pixel * math.sqrt(size.height * size.width / MAX_THUMBNAIL_PX))
    if wanted <= pixel:
        return SlideView.at(slide, None)
    if slide.mpp is not None:
        return SlideView.at(slide, wanted)
    return SlideView.reduced(slide, wanted / pixel)


def read_thumbnail(view: SlideView) -> NDArray[np.uint8]:
    """(height, width, 3) RGB of the whole ``view``; it is read in strips, so that only the result is large."""
    height, width = view.size
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, STRIP_PX):
        strip = Region(top, 0, min(STRIP_PX, height - top), width)
        pixels[strip.slices] = view.read(strip)
    return pixels


def _mpp(slide: SlideReader) -> float:
    return slide.mpp or ASSUMED_MPP
