"""HER2 scores, from no stain to strong (ASCO/CAP 2018)."""

from __future__ import annotations

from typing import Literal

Her2 = Literal["0", "1+", "2+", "3+"]
HER2_SCORES: tuple[Her2, ...] = ("0", "1+", "2+", "3+")
