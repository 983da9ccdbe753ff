"""Random changes of a pair, drawn from the generator that is handed in: the same draw gives the same crop."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from wsi_ihc.training.data_settings import AugmentationSettings
from wsi_ihc.training.densities import EOSIN, HAEMATOXYLIN, blurred, optical_density, unit
from wsi_ihc.training.examples import Image

_INKS = np.array([(0.88, 0.28, 0.38), (0.76, 0.60, 0.25), (0.58, 0.58, 0.58)], np.float32)
"""Optical densities of a green, a blue and a black pen in red, green and blue, of about unit length. Red ones are left
out: nothing tells them from blood and eosin."""


def crop_pair(he: Image, ihc: Image, side: int, zoom: float, random: np.random.Generator) -> tuple[Image, Image]:
    """The same random square of both, ``side`` working pixels after zooming. Both images are at least that large."""
    height, width = he.shape[:2]
    factor = random.uniform(1 - zoom, 1 + zoom) if zoom else 1.0
    window = min(round(side / factor), height, width)
    top = int(random.integers(height - window + 1))
    left = int(random.integers(width - window + 1))
    rows, columns = slice(top, top + window), slice(left, left + window)
    he, ihc = he[rows, columns], ihc[rows, columns]
    if window == side:
        return he, ihc
    interpolation = cv2.INTER_AREA if window > side else cv2.INTER_LINEAR
    resized = [cv2.resize(image, (side, side), interpolation=interpolation) for image in (he, ihc)]
    return cast(Image, resized[0]), cast(Image, resized[1])


def augment_pair(
    he: Image, ihc: Image, settings: AugmentationSettings, random: np.random.Generator
) -> tuple[Image, Image]:
    """Mirror and turn both alike, then change stain, light and ink of the H&E alone. Square images of one size."""
    if settings.flip and random.random() < 0.5:
        he, ihc = he[:, ::-1], ihc[:, ::-1]
    if settings.turn:
        quarters = int(random.integers(4))
        he, ihc = np.rot90(he, quarters), np.rot90(ihc, quarters)
    if settings.stain or settings.light or settings.tint:
        he = jitter_stain(he, settings.stain, settings.light, random, tint=settings.tint)
    if settings.monochrome and random.random() < settings.monochrome:
        he = drop_hue(he, random)
    if settings.focus:
        he = jitter_focus(he, settings.focus, random)
    if settings.ink and random.random() < settings.ink:
        he = lay_ink(he, random)
    return np.ascontiguousarray(he), np.ascontiguousarray(ihc)


def jitter_stain(he: Image, stain: float, light: float, random: np.random.Generator, *, tint: float = 0.0) -> Image:
    """H&E as another laboratory and scanner would give it.

    Works on optical densities, where stains add up (after Tellez et al. 2018, arXiv 1808.05896): the densities of
    haematoxylin and eosin are scaled apart, what neither explains is kept. ``tint`` scales the densities of red, green
    and blue apart. White glass stays white but for the light.
    """
    haematoxylin, eosin = random.uniform(1 - stain, 1 + stain, 2)
    gain = random.uniform(1 - light, 1, 3)
    stains = np.stack([HAEMATOXYLIN, EOSIN])
    # density @ change = density + (amounts of both stains) * (factor - 1) * (their colours)
    change = np.eye(3) + np.linalg.pinv(stains) @ np.diag([haematoxylin - 1, eosin - 1]) @ stains
    if tint:
        change = change @ np.diag(random.uniform(1 - tint, 1 + tint, 3))
    shifted = optical_density(he) @ change.astype(np.float32)
    jittered: Image = np.clip(256 * gain.astype(np.float32) * np.exp(-shifted) - 1, 0, 255).round().astype(np.uint8)
    return jittered


def drop_hue(he: Image, random: np.random.Generator) -> Image:
    """The H&E in one dye, in part or wholly: what is told apart by hue alone must then be known by its shape.

    The densities of red, green and blue are replaced by their mean in a hue between eosin and haematoxylin.
    """
    share, blue = random.uniform(0.3, 1), random.uniform()
    hue = unit(blue * unit(HAEMATOXYLIN) + (1 - blue) * unit(EOSIN)) * np.float32(3**0.5)
    density = optical_density(he)
    one_dye = density.mean(axis=2, keepdims=True) * hue
    mixed = (1 - share) * density + share * one_dye
    dropped: Image = np.clip(256 * np.exp(-mixed) - 1, 0, 255).round().astype(np.uint8)
    return dropped


def jitter_focus(he: Image, focus: float, random: np.random.Generator) -> Image:
    """The H&E out of focus, as it is, or oversharpened as some scanners deliver it: one of the three, evenly.

    ``focus`` is the largest sigma of the blur, pixels, and the largest amount of the unsharp mask.
    """
    amount, choice = random.uniform(0.3, 1) * focus, int(random.integers(3))
    if choice == 0:
        return cast(Image, cv2.GaussianBlur(he, (0, 0), amount))
    if choice == 1:
        sharpened = he + amount * (he - cv2.GaussianBlur(he.astype(np.float32), (0, 0), 1.0))
        rounded: Image = np.clip(sharpened, 0, 255).round().astype(np.uint8)
        return rounded
    return he


def lay_ink(he: Image, random: np.random.Generator) -> Image:
    """The H&E ``(h, w, 3)`` under pen: the edge or the middle of a stroke, uneven, and wider than a crop.

    Its ink adds to the optical density, from a tint to what hides everything below.
    """
    height, width = he.shape[:2]
    angle, offset = random.uniform(0, 2 * np.pi), random.uniform(-0.4, 0.8) * max(height, width)
    rows, columns = np.mgrid[:height, :width] - np.array([height, width]).reshape(2, 1, 1) / 2
    inside = rows * np.sin(angle) + columns * np.cos(angle) < offset
    cover = blurred(inside, random.uniform(0.5, 8))
    flow = blurred(random.standard_normal((height, width)), 6)
    cover *= 1 + random.uniform(0, 0.3) * flow / max(float(flow.std()), 1e-6)
    amount = np.exp(random.uniform(np.log(0.3), np.log(4)))
    ink = np.maximum(_INKS[random.integers(len(_INKS))] + random.normal(0, 0.06, 3), 0.02)
    density = (amount * np.maximum(cover, 0))[..., None] * ink
    inked: Image = (he * np.exp(-density)).round().astype(np.uint8)
    return inked
