"""What Aperio's description and OME-XML say of pixel size and objective. Nothing else of them may leave the file."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.slides.pixel_size import from_text

UM_PER_UNIT = {"m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "Å": 1e-4, "in": 25400.0}


def mpp_of_aperio(description: str) -> tuple[float, float] | None:
    """``MPP = 0.499`` of an Aperio ImageDescription, um/px in x and y."""
    found = re.search(r"\|\s*MPP\s*=\s*([0-9.eE+-]+)", description)
    return from_text(found.group(1)) if found else None


def objective_of_aperio(description: str) -> str | None:
    """``AppMag = 20`` of an Aperio ImageDescription."""
    found = re.search(r"\|\s*AppMag\s*=\s*([0-9.]+)", description)
    return found.group(1) if found else None


def mpp_of_ome(xml: str, size: Size) -> tuple[float, float] | None:
    """PhysicalSizeX and Y, um/px, of the OME Pixels whose plane has ``size``, or else of the first."""
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return None
    candidates = [element for element in root.iter() if element.tag.rpartition("}")[2] == "Pixels"]
    same = [
        pixels
        for pixels in candidates
        if (pixels.get("SizeY"), pixels.get("SizeX")) == (str(size.height), str(size.width))
    ]
    for pixels in same or candidates[:1]:
        scales = [UM_PER_UNIT.get(pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "XY"]
        stated = from_text(pixels.get("PhysicalSizeX"), pixels.get("PhysicalSizeY"))
        if stated and scales[0] and scales[1]:
            return stated[0] * scales[0], stated[1] * scales[1]
    return None


def objective_of_ome(xml: str) -> str | None:
    """NominalMagnification of the first Objective of OME-XML."""
    found = re.search(r"<[^<>]*Objective\b[^<>]*\bNominalMagnification=\"([0-9.]+)\"", xml)
    return found.group(1) if found else None
