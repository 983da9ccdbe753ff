"""Is side A H&E and side B IHC? Asked of the colours of the whole set; one image may be pale, folded or full of blood.

Optical densities: haematoxylin takes most of the red, eosin of the green, DAB of the blue.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_LOOK_PX = 256
_ENOUGH_PX = 256
"""Fewer pixels of tissue say nothing about a stain."""
_BROWN, _NO_BROWN = 0.05, 0.01
"""Share of tissue. In H&E under 1 % is brown, in clear DAB over 12 %."""
_PINK, _LITTLE_PINK = 0.5, 0.4
"""Share of tissue. In H&E over half is pink or purple, in weak DAB with haematoxylin under a fifth."""


@dataclass(frozen=True, slots=True)
class Hues:
    """Colours of one image, in pixels after reduction."""

    pixels: int
    tissue: int
    brown: int
    pink: int
    coloured: int
    """Of ``tissue``, pixels that are not grey."""
    dark: int
    """Of ``pixels``, those nearly black."""
    red: float
    blue: float
    """Summed optical density of the darkest tenth of the tissue: in H&E nuclei, which take more red than blue."""


def hues_of(image: NDArray[np.uint8]) -> Hues:
    """The colours of ``(height, width, 3)`` RGB, noise averaged out."""
    height, width = (min(side, _LOOK_PX) for side in image.shape[:2])
    small = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=cv2.INTER_AREA).reshape(-1, 3)
    red, green, blue = -np.log10((small.astype(np.float32).T + 1) / 256)
    density = red + green + blue
    tissue = (density > 0.4) & (density < 3.5)
    darkest = tissue & (density >= np.quantile(density[tissue], 0.9)) if tissue.any() else tissue
    return Hues(
        len(small),
        int(tissue.sum()),
        int((tissue & (blue > 1.1 * green) & (blue > 1.25 * red)).sum()),
        int((tissue & (green > 1.1 * red)).sum()),
        int((tissue & (np.ptp(small, axis=1) > 8)).sum()),
        int((small.max(axis=1) < 50).sum()),
        float(red[darkest].sum()),
        float(blue[darkest].sum()),
    )


@dataclass(frozen=True, slots=True)
class _Side:
    """Shares over all images of one side."""

    brown: float
    pink: float
    coloured: float
    dark: float
    red_to_blue: float

    @property
    def like_he(self) -> bool:
        return self.pink >= _PINK and self.brown < _NO_BROWN

    @property
    def like_ihc(self) -> bool:
        return self.brown > _BROWN


def _pooled(images: Sequence[Hues]) -> _Side | None:
    tissue = sum(image.tissue for image in images)
    if tissue < _ENOUGH_PX:
        return None
    brown, pink, coloured = (sum(getattr(i, key) for i in images) / tissue for key in ("brown", "pink", "coloured"))
    dark = sum(image.dark for image in images) / sum(image.pixels for image in images)
    red, blue = (sum(getattr(image, key) for image in images) for key in ("red", "blue"))
    return _Side(brown, pink, coloured, dark, red / max(blue, 1e-6))


def doubts_about_sides(he: Sequence[Hues], ihc: Sequence[Hues]) -> Iterator[str]:
    """One line for each thing that speaks against ``he`` being H&E and ``ihc`` another stain of it."""
    a, b = _pooled(he), _pooled(ihc)
    if a is None or b is None:
        return
    if a.dark > 0.2:
        yield f"{a.dark:.0%} of the H&E side is black, as in fluorescence or inverted images; brightfield is expected"
        return
    if b.like_he and (a.like_ihc or a.pink < _LITTLE_PINK):
        yield (
            f"the sides seem swapped: {a.brown:.0%} of the tissue on the H&E side is brown and {a.pink:.0%} pink, "
            f"on the IHC side {b.brown:.0%} and {b.pink:.0%}; exchange the folders, or name them with he and ihc of "
            "the source"
        )
        return
    if a.coloured < 0.05:
        yield "the H&E side has shades of grey only; give the colour images"
    elif a.like_ihc:
        yield f"{a.brown:.0%} of the tissue on the H&E side is brown: it looks like IHC"
    elif a.red_to_blue < 0.8:
        yield "nuclei on the H&E side take more blue light than red: red and blue seem exchanged (BGR)"
    elif a.pink < _LITTLE_PINK:
        yield f"only {a.pink:.0%} of the tissue on the H&E side is pink or purple: it does not look like H&E"
    if b.like_he:
        yield f"{b.pink:.0%} of the tissue on the IHC side is pink or purple and nothing brown: it looks like H&E"
