"""The colours of dyes: optical density in red, green and blue, of about unit length.

Haematoxylin, eosin and DAB are Ruifrok and Johnston's (Anal Quant Cytol Histol 23:291, 2001), in the three digits that
ImageJ's colour deconvolution gives them. Separation and painting of stains start from these. The dyes of a slide may
differ; the phantom and the augmentations vary them as laboratories do.
"""

from __future__ import annotations

Vector = tuple[float, float, float]
"""Red, green, blue."""

HAEMATOXYLIN: Vector = (0.650, 0.704, 0.286)
EOSIN: Vector = (0.072, 0.990, 0.105)
DAB: Vector = (0.268, 0.570, 0.776)
COUNTERSTAIN: Vector = (0.70, 0.62, 0.35)
"""Haematoxylin of an IHC slide, where nothing pink lies over it: greyer and bluer. Measured on nuclei outside the DAB
of public IHC images."""
