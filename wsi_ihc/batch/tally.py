"""Where a cohort stands, from its records alone: what ``status`` shows and the summary holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wsi_ihc.batch.claims import Claims
from wsi_ihc.batch.records import Records, SlideRecord


@dataclass(frozen=True)
class Tally:
    """Counts, pace and the time that is left, roughly."""

    done: int
    failed: int
    running: int
    waiting: int
    megapixels: float
    """Stained in finished slides."""
    megapixels_per_s: float | None
    """Of one conversion, times those that run now."""
    remaining_s: float | None

    @property
    def total(self) -> int:
        return self.done + self.failed + self.running + self.waiting


def read_cohort(records: Records) -> dict[str, SlideRecord]:
    """Every record by name. A slide that nobody works on any more is not running: it waits to be continued."""
    claims = Claims(records.folder)
    found = {}
    for name, record in records.all():
        if record.state == "running" and claims.owner(name) is None:
            record = record.model_copy(
                update={"state": "waiting", "reason": "its batch has ended; it will be continued"}
            )
        found[name] = record
    return found


def tally(cohort: Mapping[str, SlideRecord]) -> Tally:
    """The pace is measured in seconds of work and bytes of slide, so that a clock that jumps does not matter."""
    by_state: dict[str, list[SlideRecord]] = {state: [] for state in ("done", "failed", "running", "waiting")}
    for record in cohort.values():
        by_state[record.state].append(record)
    done, at_once = by_state["done"], max(1, len(by_state["running"]))
    seconds, size = sum(record.seconds for record in done), sum(record.source_bytes for record in done)
    megapixels = sum(record.megapixels or 0.0 for record in done)
    ahead = [*by_state["running"], *by_state["waiting"]]
    # A running slide is on average half done.
    left = sum(record.source_bytes * (0.5 if record.state == "running" else 1.0) for record in ahead)
    return Tally(
        **{state: len(found) for state, found in by_state.items()},
        megapixels=round(megapixels, 3),
        megapixels_per_s=round(megapixels / seconds * at_once, 3) if seconds else None,
        remaining_s=round(left / size * seconds / at_once) if size and seconds else None,
    )
