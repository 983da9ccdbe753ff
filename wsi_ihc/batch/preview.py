"""What a run would do with each slide; nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from wsi_ihc.batch.children import generator_fingerprint
from wsi_ihc.batch.claims import Claims
from wsi_ihc.batch.cohort import Entry
from wsi_ihc.batch.decisions import decide
from wsi_ihc.batch.options import BatchOptions
from wsi_ihc.batch.recipe import make_recipe
from wsi_ihc.batch.records import Records

_WORDS = {
    "convert": "would be converted",
    "adopt": "done",
    "keep": "done",
    "leave": "failed before, --retry-failed tries again",
    "refuse": "would fail",
}


def preview(entries: Sequence[Entry], folder: Path, options: BatchOptions) -> Iterator[tuple[Entry, str]]:
    """Each slide and what would become of it, in words.

    Raises:
        GeneratorError: a generator cannot be used.
    """
    generators = {name: generator_fingerprint(name) for name in {entry.settings.generator.name for entry in entries}}
    records = Records(folder)
    claims = Claims(records.folder)
    for entry in entries:
        if owner := claims.owner(entry.name):
            yield entry, f"{owner} is at work on it"
            continue
        if not entry.slide.exists():
            yield entry, "would fail: missing"
            continue
        recipe = make_recipe(entry.slide, entry.settings, generators[entry.settings.generator.name])
        decision = decide(
            entry.output(folder),
            records.read(entry.name),
            recipe,
            retry_failed=options.retry_failed,
            overwrite=options.overwrite,
        )
        yield entry, _WORDS[decision.action] + (f": {decision.why}" if decision.why else "")
