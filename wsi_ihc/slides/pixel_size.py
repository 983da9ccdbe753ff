"""The pixel size of a slide: one plausible number from the statements of the file and of the user."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

PLAUSIBLE_MPP = (0.05, 20.0)
"""From a 200x oil objective to a flatbed scanner, um/px. Print resolutions (72 dpi is 353 um) fall outside."""
SQUARE = 0.02
"""Relative difference of x and y up to which pixels count as square: scanners are calibrated no better."""
NEARLY_SQUARE = 0.10
"""Up to this difference the mean is used, with a notice; beyond it shapes would be distorted."""


@dataclass(frozen=True, slots=True)
class PixelSize:
    """The pixel size that is used: ``mpp`` of level 0 in um/px, None where unknown; and notices for the user."""

    mpp: float | None
    notices: tuple[str, ...] = ()


def settle(stated: tuple[float, float] | None, override: float | None) -> PixelSize:
    """One pixel size from the ``stated`` (x, y) um/px of a file; ``override``, from the user, comes first.

    An override gives a notice, unless the file states the same value within the calibration of scanners.
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
    """um/px from TIFF XResolution and YResolution, pixels per ``unit``: 2 is an inch, 3 a centimetre. Else None."""
    um = {2: 25400.0, 3: 10000.0}.get(unit)
    return (um / x, um / y) if um and x > 0 and y > 0 else None


def from_text(x: str | None, y: str | None = None) -> tuple[float, float] | None:
    """um/px in x and y from numbers written as text; ``x`` serves both axes where ``y`` is None. None without text.

    The whole text must be a number, with a decimal point or comma, and with nothing but um behind it. Any other text
    becomes NaN, which ``settle`` refuses.
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
    """The stated pixel size as properties, under the names that every reader uses."""
    if stated is None or any(math.isnan(value) for value in stated):
        return {}
    return {"mpp-x": f"{stated[0]:.6g}", "mpp-y": f"{stated[1]:.6g}"}
