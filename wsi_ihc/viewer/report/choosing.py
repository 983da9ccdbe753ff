"""Which fields a reader of the report should see."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wsi_ihc.viewer.report.scan import FIELD_PX, Field

LEAST_TISSUE = 0.6
"""Share of tissue that a field must have, where any field has so much."""


def choose_fields(fields: Sequence[Field], doubt: Callable[[Field], float] | None = None) -> dict[str, Field]:
    """Strongest, median and weakest field by DAB pixel score; most doubtful by ``doubt``, where the output tells it.

    Each field stands once: where one is the extreme of two kinds, the later kind takes the next.
    """
    whole = [field for field in fields if field.place.size == (FIELD_PX, FIELD_PX)]
    candidates = [field for field in whole if field.tissue_share >= LEAST_TISSUE] or whole or list(fields)
    ranked = sorted(candidates, key=lambda field: field.readout.score)
    if not ranked:
        return {}
    orders = {"strongest": ranked[::-1], "median": _from_the_middle(ranked), "weakest": ranked}
    if doubt:
        orders["most doubtful"] = sorted(ranked, key=doubt, reverse=True)
    chosen: dict[str, Field] = {}
    for name, order in orders.items():
        if left := next((field for field in order if field not in chosen.values()), None):
            chosen[name] = left
    return chosen


def _from_the_middle(ranked: list[Field]) -> list[Field]:
    middle = (len(ranked) - 1) / 2
    return [ranked[index] for index in sorted(range(len(ranked)), key=lambda index: abs(index - middle))]
