"""The look of a section, by staining and scanning: all properties of a picture that are not tissue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.errors import SettingsError
from wsi_ihc.measures.dyes import COUNTERSTAIN, HAEMATOXYLIN, Vector

# Optical density per unit of stain in red, green and blue, after the tints of common scanners and laboratories.
HAEMATOXYLINS: tuple[Vector, ...] = (HAEMATOXYLIN, (0.58, 0.73, 0.36), (0.55, 0.76, 0.35), (0.66, 0.69, 0.30))
EOSINS: tuple[Vector, ...] = ((0.092, 0.954, 0.283), (0.10, 0.86, 0.50), (0.14, 0.84, 0.52), (0.16, 0.90, 0.40))
DAB: Vector = (0.325, 0.52, 0.79)
"""Optical density of DAB. It absorbs more red and less green than the published vector: a more olive brown."""


@dataclass(frozen=True, slots=True)
class Look:
    """One laboratory and one scanner. The default is a clean, well-balanced slide."""

    haematoxylin: Vector = (0.57, 0.74, 0.36)
    """Optical density per unit of stain in R, G, B."""
    eosin: Vector = (0.11, 0.86, 0.49)
    dab: Vector = DAB
    counterstain: Vector = COUNTERSTAIN
    """Haematoxylin of the IHC: bluer, as nothing pink lies over it."""
    haematoxylin_strength: float = 1.0
    eosin_strength: float = 1.0
    dab_strength: float = 1.0
    counterstain_strength: float = 1.0
    section_thickness: float = 1.0
    """Thickness relative to the usual 4 um; the densities of all stains are multiplied by it."""
    white_he: Vector = (243, 242, 244)
    """RGB of the scanner on bare glass."""
    white_ihc: Vector = (242, 242, 243)
    blur_um: float = 0.28
    """Sigma of the scanner's Gaussian point spread."""
    noise: float = 1.2
    """Standard deviation of the sensor noise, grey levels."""
    gamma: float = 1.0
    jpeg_quality: int = 90
    scale: float = 1.0
    """Size of cells and all other structures, relative to the usual one."""

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Look:
        """A random look, from wide ranges: a generator trained on many of them adapts better to real laboratories."""
        tint = rng.normal(0, 2.5, 3)
        white = rng.uniform(228, 252)
        return cls(
            haematoxylin=_mixed(rng, HAEMATOXYLINS, 0.035),
            eosin=_mixed(rng, EOSINS, 0.035),
            dab=_perturbed(rng, DAB, 0.03),
            counterstain=_perturbed(rng, COUNTERSTAIN, 0.03),
            haematoxylin_strength=float(np.exp(rng.normal(0, 0.22))),
            eosin_strength=float(np.exp(rng.normal(0, 0.22))),
            # The HER2 score depends on the density of DAB, so it varies less than the other stains.
            dab_strength=float(np.exp(rng.normal(0, 0.06))),
            counterstain_strength=float(np.exp(rng.normal(0, 0.18))),
            section_thickness=float(np.exp(rng.normal(0, 0.10))),
            white_he=_vector(np.clip(white + tint, 215, 254)),
            white_ihc=_vector(np.clip(rng.uniform(228, 252) + rng.normal(0, 2, 3), 215, 254)),
            blur_um=float(rng.uniform(0.15, 0.6)),
            noise=float(rng.uniform(0.5, 3.5)),
            gamma=float(np.exp(rng.normal(0, 0.09))),
            jpeg_quality=int(rng.integers(65, 97)),
            scale=float(np.exp(rng.uniform(np.log(0.8), np.log(1.25)))),
        )

    @classmethod
    def random(cls, seed: int) -> Look:
        """The random look of a seed.

        Raises:
            SettingsError: the seed is negative.
        """
        if seed < 0:
            raise SettingsError(f"seed of the look {seed}: expected a whole number from 0")
        return cls.sample(np.random.default_rng([seed, 0x100C]))


def _vector(values: NDArray[np.float64]) -> Vector:
    return float(values[0]), float(values[1]), float(values[2])


def _perturbed(rng: np.random.Generator, vector: Vector, spread: float) -> Vector:
    values = np.clip(np.asarray(vector) + rng.normal(0, spread, 3), 0.02, None)
    return _vector(values / np.linalg.norm(values))


def _mixed(rng: np.random.Generator, vectors: tuple[Vector, ...], spread: float) -> Vector:
    weights = rng.dirichlet(np.full(len(vectors), 0.7))
    return _perturbed(rng, _vector(weights @ np.asarray(vectors)), spread)
