"""Are the borders of tiles visible? Steps across them against steps everywhere else.

Two kinds of step: the *gradient*, pixel against neighbour, that a hard edge shows; and the *DAB step*, the mean DAB
density of a short strip before the line against the strip behind it, that a change of tone from tile to tile shows
even when its edge was feathered.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.measures.stain import unmix

STRIP_PX = 4
SEGMENT_PX = 64
GUARD_PX = 8
"""Grids that pass this near a real border are no witnesses of the interior."""
JPEG_BLOCK_PX = 8


@dataclass(frozen=True, slots=True)
class SeamScore:
    """Step at the borders over step elsewhere, 1.0 is seamless; p is the share of shifted grids that look as bad."""

    gradient: float
    gradient_p: float
    dab: float
    dab_p: float


def seam_score(
    image: NDArray[np.uint8], period: int, offset: tuple[int, int] = (0, 0), *, permutations: int = 999, seed: int = 0
) -> SeamScore:
    """Score the borders of a grid of tiles in an (height, width, 3) uint8 image.

    The grid's lines lie ``period`` pixels apart; ``offset`` is the (row, column) at which one tile begins. The witness
    is the same grid shifted by random amounts, so that spacing, number of lines and tissue stay alike; the p-value is
    that of the permutation test, at best ``1 / (permutations + 1)``.

    Raises:
        ValueError: the period is too short to leave an interior, or no border crosses the image.
    """
    if period <= 4 * GUARD_PX:
        raise ValueError(f"period of {period} px leaves no interior; expected more than {4 * GUARD_PX}")
    gray = image.mean(axis=2, dtype=np.float32)
    _, dab = unmix(image, "h-dab")
    generator = np.random.default_rng(seed)
    # JPEG has faint steps of its own between its 8 x 8 blocks: witnesses must lie on those as borders do.
    unit = JPEG_BLOCK_PX if period % JPEG_BLOCK_PX == 0 else 1
    shifts = unit * generator.integers(-(-GUARD_PX // unit), (period - GUARD_PX) // unit + 1, (permutations, 2))
    gradient = _ratio((_gradients(gray.T), _gradients(gray)), period, offset, shifts)
    steps = _ratio((_strip_steps(dab.T), _strip_steps(dab)), period, offset, shifts)
    return SeamScore(*gradient, *steps)


def _gradients(plane: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean absolute step onto each column from the one before; NaN for the first."""
    steps = np.full(plane.shape[1], np.nan)
    steps[1:] = np.abs(np.diff(plane, axis=1)).mean(axis=0)
    return steps


def _strip_steps(plane: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean absolute difference of the strips before and behind each column, averaged over segments along it."""
    height, width = plane.shape
    length = min(SEGMENT_PX, height)
    segments = plane[: height // length * length].reshape(-1, length, width).mean(axis=1, dtype=np.float64)
    sums = np.concatenate([np.zeros((len(segments), 1)), segments.cumsum(axis=1)], axis=1)
    steps = np.full(width, np.nan)
    columns = np.arange(STRIP_PX, width - STRIP_PX + 1)[: max(0, width - 2 * STRIP_PX)]
    before, behind = sums[:, columns] - sums[:, columns - STRIP_PX], sums[:, columns + STRIP_PX] - sums[:, columns]
    steps[columns] = np.abs(behind - before).mean(axis=0) / STRIP_PX
    return steps


def _ratio(
    profiles: tuple[NDArray[np.float64], NDArray[np.float64]],
    period: int,
    offset: tuple[int, int],
    shifts: NDArray[np.int64],
) -> tuple[float, float]:
    """Step on the grid over the mean step on shifted grids, and the permutation p-value."""
    folded = [_by_phase(profile, period, start) for profile, start in zip(profiles, offset, strict=True)]

    def mean_step(phases: tuple[int, int]) -> float:
        chosen = np.concatenate([lines[phase] for lines, phase in zip(folded, phases, strict=True)])
        chosen = chosen[~np.isnan(chosen)]
        return float(chosen.mean()) if chosen.size else float("nan")

    observed = mean_step((0, 0))
    if np.isnan(observed):
        raise ValueError(f"no border of a grid of {period} px at offset {offset} lies inside the image")
    witnesses = np.array([mean_step((int(row), int(column))) for row, column in shifts])
    witnesses = witnesses[~np.isnan(witnesses)]
    baseline = float(witnesses.mean())
    p = (1 + int((witnesses >= observed).sum())) / (1 + witnesses.size)
    return (observed / baseline if baseline else (1.0 if observed == 0 else float("inf"))), p


def _by_phase(profile: NDArray[np.float64], period: int, start: int) -> NDArray[np.float64]:
    """(period, lines): the steps of all lines that lie a given number of pixels behind a border."""
    lines = -(-profile.size // period) + 1
    padded = np.full(lines * period, np.nan)
    lead = -start % period  # pixels of the first, partial tile that lie before the image
    padded[lead : lead + profile.size] = profile
    return padded.reshape(lines, period).T
