"""From what a file says about its pixel size to one number that can be true."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

PLAUSIBLE_MPP = (0.05, 20.0)
"""From a 200x oil objective to a flatbed scanner, um/px. Print resolutions (72 dpi is 353 um) fall outside."""
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
    """One pixel size from the ``stated`` (x, y) um/px of a file, or the user's own word.

    The user's word is a notice unless the file says the same, within the calibration of scanners.
    """
    if override is not None:
        if stated and all(abs(value - override) <= SQUARE * override for value in stated):
            return PixelSize(override)
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
    if math.isnan(x) or math.isnan(y):
        return "nan (no number)"
    return f"{x:.4g} um" if x == y else f"{x:.4g} x {y:.4g} um"


def from_resolution_tags(x: float, y: float, unit: int) -> tuple[float, float] | None:
    """TIFF XResolution and YResolution in pixels per ``unit``: 2 is an inch, 3 a centimetre, else no unit."""
    um = {2: 25400.0, 3: 10000.0}.get(unit)
    return (um / x, um / y) if um and x > 0 and y > 0 else None


def from_text(x: str | None, y: str | None = None) -> tuple[float, float] | None:
    """Numbers written as text, um/px; of one that is alone both axes are made. None where nothing is written.

    The whole text must be the number, with a point or a comma before its decimals, and um behind it if anything:
    half of a text is another number. A text that is none becomes NaN, which cannot be true.
    """
    if not (x and x.strip()):
        return None
    return _number(x), _number(x if y is None else y)


def _number(text: str) -> float:
    found = re.fullmatch(
        r"\s*([+-]?\d*[.,]?\d+(?:[eE][+-]?\d{1,3})?|[+-]?\d+[.,])\s*(?:um|µm|μm|microns?)?\s*", text, re.ASCII
    )
    return float(found.group(1).replace(",", ".")) if found and len(text) < 64 else math.nan


def as_properties(stated: tuple[float, float] | None) -> dict[str, str]:
    """The stated pixel size under the names that every reader uses."""
    if stated is None or any(math.isnan(value) for value in stated):
        return {}
    return {"mpp-x": f"{stated[0]:.6g}", "mpp-y": f"{stated[1]:.6g}"}
