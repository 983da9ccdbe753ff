"""A digital tissue phantom: breast-like carcinoma in H&E, and the HER2 IHC of the same section, of any size.

Everything is a function of a seed and of the place on an endless plane; see ``docs/phantom.md``.
"""

from wsi_ihc.measures.her2 import HER2_SCORES, Her2
from wsi_ihc.phantom.field import Field, draw_field
from wsi_ihc.phantom.looks import Look
from wsi_ihc.phantom.pairs import draw_pairs
from wsi_ihc.phantom.writing import draw_phantom

__all__ = ["HER2_SCORES", "Field", "Her2", "Look", "draw_field", "draw_pairs", "draw_phantom"]
