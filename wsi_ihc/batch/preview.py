"""Preview of a run: what it would do with each slide. Nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from wsi_ihc.batch.children import fingerprints
from wsi_ihc.batch.claims import Claims
from wsi_ihc.batch.cohort import Entry
from wsi_ihc.batch.decisions import decide
from wsi_ihc.batch.options import BatchOptions
from wsi_ihc.batch.recipe import make_recipe
from wsi_ihc.batch.records import Records
from wsi_ihc.errors import GeneratorError

WOULD_FAIL = "would fail"
_WORDS = {
    "convert": "would be converted",
    "adopt": "done",
    "keep": "done",
    "leave": "failed before, --retry-failed tries again",
    "refuse": WOULD_FAIL,
}


def preview(entries: Sequence[Entry], folder: Path, options: BatchOptions) -> Iterator[tuple[Entry, str]]:
    """Each slide and, in words, what a run would do with it.

    Raises:
        GeneratorError: a generator cannot be used.
    """
    generators = fingerprints(entries)
    records = Records(folder)
    claims = Claims(records.folder)
    for entry in entries:
        if owner := claims.owner(entry.name):
            yield entry, f"{owner} converts it"
            continue
        generator = generators[entry.settings.generator.name]
        if isinstance(generator, GeneratorError) or not entry.slide.exists():
            yield entry, f"{WOULD_FAIL}: {generator if isinstance(generator, GeneratorError) else 'missing'}"
            continue
        recipe = make_recipe(entry.slide, entry.settings, generator)
        decision = decide(
            entry.output(folder),
            records.read(entry.name),
            recipe,
            retry_failed=options.retry_failed,
            overwrite=options.overwrite,
        )
        yield entry, _WORDS[decision.action] + (f": {decision.why}" if decision.why else "")
