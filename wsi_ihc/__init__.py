"""H&E whole-slide images in, virtual HER2 IHC slides out. Research use only.

    from wsi_ihc import convert_slide

    convert_slide("slide.svs", "slide_ihc.ome.tiff")

The names below are the public ones; they are imported when they are first used, so that ``import wsi_ihc`` is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

RESEARCH_USE_ONLY = "Research use only. Synthetic image made by software; not for diagnosis."
"""The one sentence that stands on every output, card and report."""

if TYPE_CHECKING:
    from wsi_ihc.config import ConversionSettings, load_settings
    from wsi_ihc.convert import ConversionReport, convert_slide, estimate_conversion
    from wsi_ihc.errors import WsiIhcError
    from wsi_ihc.generators import load_generator
    from wsi_ihc.output.ometiff import verify_ome_tiff
    from wsi_ihc.pyramid.geometry import Region
    from wsi_ihc.slides import SlideView, open_slide
    from wsi_ihc.tissue import find_tissue

_HOME = {
    "ConversionReport": "wsi_ihc.convert",
    "ConversionSettings": "wsi_ihc.config",
    "Region": "wsi_ihc.pyramid.geometry",
    "SlideView": "wsi_ihc.slides",
    "WsiIhcError": "wsi_ihc.errors",
    "convert_slide": "wsi_ihc.convert",
    "estimate_conversion": "wsi_ihc.convert",
    "find_tissue": "wsi_ihc.tissue",
    "load_generator": "wsi_ihc.generators",
    "load_settings": "wsi_ihc.config",
    "open_slide": "wsi_ihc.slides",
    "verify_ome_tiff": "wsi_ihc.output.ometiff",
}

__all__ = [
    "ConversionReport",
    "ConversionSettings",
    "Region",
    "SlideView",
    "WsiIhcError",
    "convert_slide",
    "estimate_conversion",
    "find_tissue",
    "load_generator",
    "load_settings",
    "open_slide",
    "verify_ome_tiff",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
