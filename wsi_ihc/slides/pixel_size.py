"""From what a file says about its pixel size to one number that can be true."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from wsi_ihc.errors import UnsupportedSlideError
from wsi_ihc.geometry import Size

PLAUSIBLE_MPP = (0.05, 20.0)
"""From a 200x oil objective to a flatbed scanner, um/px. Print resolutions (72 dpi is 353 um) fall outside."""
UM_PER_UNIT = {"m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "Å": 1e-4, "in": 25400.0}
SQUARE = 0.02
"""Relative difference of the axes up to which pixels are square: scanners' own calibration differs by as much."""
NEARLY_SQUARE = 0.10
"""Up to here the mean serves, and the user is told; beyond, shapes would be distorted."""


@dataclass(frozen=True, slots=True)
class PixelSize:
    """What is believed: ``mpp`` of level 0 in um/px or None, and what to tell the user."""

    mpp: float | None
    notices: tuple[str, ...] = ()


def settle(stated: tuple[float, float] | None, override: float | None) -> PixelSize:
    """One pixel size from the ``stated`` (x, y) um/px of a file, or the user's own word."""
    if override is not None:
        return PixelSize(override, (f"pixel size {override:g} um/px as given, the file says {_say(stated)}",))
    if stated is None:
        return PixelSize(None)
    low, high = PLAUSIBLE_MPP
    if not all(math.isfinite(value) and low <= value <= high for value in stated):
        return PixelSize(None, (f"the file's pixel size of {_say(stated)} cannot be true and is ignored",))
    mean = math.sqrt(stated[0] * stated[1])
    difference = abs(stated[0] - stated[1]) / mean
    if difference <= SQUARE:
        # The mean of equal numbers is that number: 0.499 must not become 0.49900000000000005.
        return PixelSize(stated[0] if stated[0] == stated[1] else mean)
    if difference <= NEARLY_SQUARE:
        return PixelSize(mean, (f"pixels of {_say(stated)} are taken as squares of {mean:.4g} um",))
    return PixelSize(None, (f"pixels of {_say(stated)} are not square, so the file's pixel size is not used",))


def _say(stated: tuple[float, float] | None) -> str:
    if stated is None:
        return "nothing"
    x, y = stated
    return f"{x:.4g} um" if x == y else f"{x:.4g} x {y:.4g} um"


def from_aperio(description: str) -> tuple[float, float] | None:
    """``MPP = 0.499`` of an Aperio ImageDescription."""
    found = re.search(r"\|\s*MPP\s*=\s*([0-9.eE+-]+)", description)
    return _pair(found.group(1), found.group(1)) if found else None


def objective_of_aperio(description: str) -> str | None:
    """``AppMag = 20`` of an Aperio ImageDescription."""
    found = re.search(r"\|\s*AppMag\s*=\s*([0-9.]+)", description)
    return found.group(1) if found else None


def objective_of_ome(xml: str) -> str | None:
    """NominalMagnification of the first Objective of OME-XML."""
    found = re.search(r"<[^<>]*Objective\b[^<>]*\bNominalMagnification=\"([0-9.]+)\"", xml)
    return found.group(1) if found else None


def from_resolution_tags(x: float, y: float, unit: int) -> tuple[float, float] | None:
    """TIFF XResolution and YResolution in pixels per ``unit``: 2 is an inch, 3 a centimetre, else no unit."""
    um = {2: 25400.0, 3: 10000.0}.get(unit)
    return (um / x, um / y) if um and x > 0 and y > 0 else None


def from_ome(xml: str, size: Size) -> tuple[float, float] | None:
    """PhysicalSizeX and Y of the OME Pixels whose plane has ``size``, or else of the first."""
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return None
    candidates = [element for element in root.iter() if element.tag.rpartition("}")[2] == "Pixels"]
    same = [
        pixels for pixels in candidates if (pixels.get("SizeY"), pixels.get("SizeX")) == (str(size[0]), str(size[1]))
    ]
    for pixels in same or candidates[:1]:
        x, y = pixels.get("PhysicalSizeX"), pixels.get("PhysicalSizeY", pixels.get("PhysicalSizeX"))
        scales = [UM_PER_UNIT.get(pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "XY"]
        stated = _pair(x, y)
        if stated and scales[0] and scales[1]:
            return stated[0] * scales[0], stated[1] * scales[1]
    return None


def from_text(x: str | None, y: str | None) -> tuple[float, float] | None:
    """Numbers written as text in OpenSlide's properties ``openslide.mpp-x`` and ``-y``."""
    return _pair(x, y if y is not None else x)


def _pair(x: str | None, y: str | None) -> tuple[float, float] | None:
    try:
        return (float(x), float(y)) if x and y else None
    except ValueError:
        return None


def as_properties(stated: tuple[float, float] | None) -> dict[str, str]:
    """The stated pixel size under the names that every reader uses."""
    return {"mpp-x": f"{stated[0]:.6g}", "mpp-y": f"{stated[1]:.6g}"} if stated else {}


def check_plane(path: Path, size: Size) -> None:
    """Refuse a plane that no scanner makes; believing it would ask for memory that does not exist.

    Raises:
        UnsupportedSlideError: more than two million pixels along one side, or none.
    """
    if not all(0 < side <= 2_000_000 for side in size):
        raise UnsupportedSlideError(
            f"{path}: an image of {size.width} x {size.height} px is no slide; the file is damaged"
        )
