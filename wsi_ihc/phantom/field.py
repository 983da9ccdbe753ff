"""Windows of the endless plane: the section, painted block by block, in one look."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from wsi_ihc.errors import SettingsError
from wsi_ihc.measures.her2 import HER2_SCORES, Her2
from wsi_ihc.phantom.looks import Look
from wsi_ihc.phantom.optics import Rgb, add_noise, blur, jpeg_round_trip, transmit
from wsi_ihc.phantom.painting import Stains, map_step, paint
from wsi_ihc.phantom.patches import Canvas
from wsi_ihc.phantom.section import Section
from wsi_ihc.pyramid.geometry import Region

BLOCK_PX = 512
"""Side of a block, pixels. Blocks lie on a fixed grid, so that every window of the plane has the same pixels."""
MARGIN_PX = 8
"""Pixels that are drawn around a block, for the blur."""
BLOOD = (0.12, 0.80, 0.62)
"""Optical density of red cells in H&E; their haemoglobin takes eosin towards orange."""


class Field(NamedTuple):
    """The same tissue twice, pixel for pixel: (size, size, 3) uint8 RGB each."""

    he: Rgb
    ihc: Rgb


def draw_field(
    seed: int,
    her2: Her2,
    size_px: int = 512,
    mpp: float = 0.5,
    look: Look | None = None,
    origin: tuple[int, int] = (0, 0),
) -> Field:
    """A square window of an endless tumour, in H&E and in HER2 IHC.

    ``origin`` is its (top, left) on the plane in pixels, negative too; windows of one seed, score, mpp and look that
    overlap agree (up to their JPEG, which each window gets for itself: quality 100 leaves it out).

    Raises:
        SettingsError: for a score, size or pixel size that cannot be drawn.
    """
    refuse_undrawable(her2, size_px, size_px, mpp, seed)
    look = look or Look()
    field = draw_window(Section(seed, her2), Region(origin[0], origin[1], size_px, size_px), mpp, look)
    return compress(field, look)


def draw_window(section: Section, region: Region, mpp: float, look: Look) -> Field:
    """Any region of the plane as the scanner sees it, before JPEG."""
    he = np.empty((region.height, region.width, 3), np.uint8)
    ihc = np.empty_like(he)
    for block in blocks(region):
        part = block.intersection(region)
        drawn = draw_block(section, block, mpp, look)
        for target, source in zip((he, ihc), drawn, strict=True):
            target[part.relative_to(region).slices] = source[part.relative_to(block).slices]
    return Field(he, ihc)


def compress(field: Field, look: Look) -> Field:
    """The field after JPEG compression in the quality of the look; quality 100 leaves the pixels unchanged."""
    if look.jpeg_quality >= 100:
        return field
    return Field(jpeg_round_trip(field.he, look.jpeg_quality), jpeg_round_trip(field.ihc, look.jpeg_quality))


def refuse_undrawable(her2: str, height: int, width: int, mpp: float, seed: int) -> None:
    """Refuses values that cannot be drawn; sizes in pixels, ``mpp`` in um/px.

    Raises:
        SettingsError: the message names the value.
    """
    if not 0 <= seed < 1 << 63:
        raise SettingsError(f"seed {seed}: expected a whole number from 0 to {(1 << 63) - 1}")
    if her2 not in HER2_SCORES:
        raise SettingsError(f"HER2 score {her2!r}: expected one of {', '.join(HER2_SCORES)}")
    if not (1 <= height <= 200_000 and 1 <= width <= 200_000):
        raise SettingsError(f"size {width}x{height} px: expected 1 to 200000 px on each side")
    if not 0.1 <= mpp <= 2.0:
        raise SettingsError(f"pixel size {mpp} um: expected 0.1 to 2 um/px, where cells can be drawn")


def blocks(region: Region) -> list[Region]:
    """The blocks of the fixed grid that a region touches."""
    rows = range(region.top // BLOCK_PX, -(-region.bottom // BLOCK_PX))
    columns = range(region.left // BLOCK_PX, -(-region.right // BLOCK_PX))
    return [Region(row * BLOCK_PX, column * BLOCK_PX, BLOCK_PX, BLOCK_PX) for row in rows for column in columns]


def draw_block(section: Section, region: Region, mpp: float, look: Look, *, paired: bool = True) -> Field:
    """A region of the plane before JPEG, its corner and sides multiples of 32 px. Not ``paired``, ``ihc`` is ``he``."""
    # A larger scale is the same tissue under finer pixels.
    um_per_px = mpp / look.scale
    sigma = look.blur_um / mpp
    margin = max(MARGIN_PX, map_step(um_per_px))
    canvas = Canvas(
        region.top - margin, region.left - margin, region.height + 2 * margin, region.width + 2 * margin, um_per_px
    )
    stains = paint(section, canvas)
    core = Region(margin, margin, region.height, region.width).slices
    pictures = (_he(stains, look), _ihc(stains, look)) if paired else (_he(stains, look),)
    seen = [add_noise(blur(picture, sigma)[core], look.noise, region.top, region.left) for picture in pictures]
    return Field(seen[0], seen[-1])


def _he(stains: Stains, look: Look) -> Rgb:
    thick = look.section_thickness
    return transmit(
        (
            (stains.haematoxylin * np.float32(0.78 * thick * look.haematoxylin_strength), look.haematoxylin),
            (stains.eosin * np.float32(0.46 * thick * look.eosin_strength), look.eosin),
            (stains.blood * np.float32(0.62 * thick * look.eosin_strength), BLOOD),
        ),
        look.white_he,
        look.gamma,
    )


def _ihc(stains: Stains, look: Look) -> Rgb:
    thick = look.section_thickness
    return transmit(
        (
            (stains.counterstain * np.float32(0.62 * thick * look.counterstain_strength), look.counterstain),
            (stains.dab * np.float32(thick * look.dab_strength), look.dab),
        ),
        look.white_ihc,
        look.gamma,
    )
