"""Parameters of the nuclei of each kind of cell."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from wsi_ihc.phantom.cells import DEBRIS, DUCTAL, LYMPHOCYTE, Cells
from wsi_ihc.phantom.noise import Floats, single


@dataclass(frozen=True, slots=True)
class Shapes:
    """Parameters of nuclei: lengths in um, densities in units of stain, (cells,) each."""

    a: Floats
    """Half the long axis."""
    b: Floats
    """Half the short axis."""
    bend: Floats
    """Bend of the long axis, relative to the short axis."""
    wave: Floats
    """Depth of a threefold wave of the outline."""
    lobe: Floats
    """Roughness of the outline."""
    body: Floats
    """Density inside."""
    rim: Floats
    """Density added towards the envelope."""
    chromatin: Floats
    """Contrast of the clumps."""
    nucleolus: Floats
    """Density of a nucleolus; 0 for none."""
    focus: Floats
    """Sharpness of the outline: below 1 where the cut touches only the edge of the nucleus."""

    def single(self) -> Shapes:
        """The same in single precision."""
        return Shapes(*(np.asarray(getattr(self, item.name), np.float32) for item in fields(self)))


def tumour_shapes(cells: Cells, strength: float) -> Shapes:
    """Large, vesicular, a few in mitosis. Size, variation and nucleoli grow with ``strength``, the HER2 score."""
    size, long, rare, dark = cells.luck.T
    mitosis = rare < 0.002 + 0.004 * strength
    # The cut touches only the edge of one in eight: pale, small and soft.
    grazed = (rare > 0.875) & (dark < 0.8)
    radius = cells.radius * (0.92 + 0.06 * strength) * (0.84 + 0.28 * size) * np.where(grazed, 0.85, 1.0)
    root = np.sqrt(np.where(mitosis, 1.7 + 2.0 * long, 1.15 + 0.35 * long**2))
    uneven = 0.045 + 0.06 * strength
    body = single(np.where(mitosis, 1.9, 0.50 + 0.60 * dark**2.5 + 0.1 * strength * dark))
    body *= np.where(grazed, np.float32(0.62), np.float32(1))
    hollow = single(np.where(mitosis, 0.05, 0.44 - 0.36 * dark))
    prominent = ~mitosis & ~grazed & (dark < 0.8) & (long < 0.25 + 0.55 * strength)
    return Shapes(
        a=np.minimum(radius * root, 7.0),
        b=radius / root,
        bend=0.3 * (size - 0.5),
        wave=3 * uneven * (long - 0.5),
        lobe=np.where(mitosis, 0.3, uneven),
        body=body * (1 - hollow),
        rim=body * hollow * 1.35 + 0.05,
        chromatin=0.32 * body,
        nucleolus=np.where(prominent, 0.55 + 0.35 * strength, 0),
        focus=np.where(grazed, 0.45, 0.8 + 0.2 * rare),
    ).single()


def round_shapes(cells: Cells) -> Shapes:
    """Benign duct cells, oval and even; lymphocytes, small, round and dark; the crumbs of dead cells."""
    size, long, rare, dark = cells.luck.T
    kinds = [cells.kind == DUCTAL, cells.kind == LYMPHOCYTE, cells.kind == DEBRIS]
    radius = cells.radius * np.select(kinds, [0.97, 1.12, 0.5], 1.0)
    root = np.sqrt(1 + np.select(kinds, [0.15 + 0.4 * long**2, 0.02 + 0.25 * long**2, 0.3 * long], 0.0))
    body = np.select(kinds, [0.80 + 0.35 * dark, 0.95 + 0.55 * dark, 0.9 + 0.5 * dark], 1.0)
    return Shapes(
        a=radius * root,
        b=radius / root,
        bend=0.3 * (size - 0.5),
        wave=0.15 * (long - 0.5),
        lobe=np.full_like(size, 0.07),
        body=0.88 * body,
        rim=0.16 * body + 0.04,
        chromatin=0.22 * body,
        nucleolus=np.zeros_like(size),
        focus=0.7 + 0.3 * rare,
    ).single()


def spindle_shapes(cells: Cells) -> Shapes:
    """Fibroblasts and endothelium: some thin and dark like a thread, some plump and pale."""
    size, long, rare, dark = cells.luck.T
    plump = np.clip((rare - 0.55) * 4, 0, 1)
    half = 4.6 + 4.0 * size**2
    body = 0.72 + 0.5 * dark - 0.32 * plump
    return Shapes(
        a=half,
        b=0.9 + 0.5 * long + 1.3 * plump,
        bend=0.9 * (dark - 0.5),
        wave=0.2 * (long - 0.5),
        lobe=0.06 + 0.04 * long,
        body=0.85 * body,
        rim=0.2 * body,
        chromatin=0.22 * body,
        nucleolus=np.zeros_like(size),
        focus=0.6 + 0.4 * long,
    ).single()
