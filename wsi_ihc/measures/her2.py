"""The levels of the HER2 score, from no stain to strong (ASCO/CAP 2018)."""

from __future__ import annotations

from typing import Literal

Her2 = Literal["0", "1+", "2+", "3+"]
HER2_LEVELS: tuple[Her2, ...] = ("0", "1+", "2+", "3+")
