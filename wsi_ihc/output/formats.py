"""The formats that an output can have, chosen by the suffix of its name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wsi_ihc.output.ometiff.opening import open_pyramid
from wsi_ihc.pyramid.layers import STAINED
from wsi_ihc.pyramid.pyramid import TilePyramid


def open_output(path: Path) -> Mapping[str, TilePyramid]:
    """The pyramids of a finished output, by the name of their layer; ``stained`` is always there.

    Raises:
        UnreadableSlideError: missing, damaged, or no output.
        UnsupportedSlideError: its tiles are not encoded as wsi-ihc encodes them.
    """
    return {STAINED: open_pyramid(path)}
