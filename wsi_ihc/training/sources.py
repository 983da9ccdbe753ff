"""From settings to examples: which files are learnt from, and which are held out to validate.

The test split is never looked at. A ``val`` split beside it validates. Otherwise some cases are held out of training,
chosen by a hash of their names so that the choice survives files that are added later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_ihc.errors import DataSetError
from wsi_ihc.pairs import folders as pairs
from wsi_ihc.pairs.cases import case_of
from wsi_ihc.pairs.images import IMAGE_SUFFIXES
from wsi_ihc.training.config import TrainingSettings
from wsi_ihc.training.data_settings import USUAL_MPP, SourceSettings
from wsi_ihc.training.examples import Example, ImageExample, RestainedExample

_VALIDATION_SPLITS = ("val", "valid", "validation")


@dataclass(frozen=True, slots=True)
class Source:
    """What one source gave."""

    name: str
    weight: float
    train: Sequence[Example]
    validation: Sequence[Example]
    unpaired: Sequence[Path] = ()
    """Images whose partner is missing."""


def find_sources(settings: TrainingSettings) -> list[Source]:
    """Every source of the settings, in their order; optional ones whose folder is missing are left out.

    Raises:
        DataSetError: for a missing folder, an unknown layout, or a source without a single pair.
    """
    found = []
    for name, source in settings.data.sources.items():
        folder = _folder(settings, name, source)
        if folder is not None:
            found.append(_find(name, source, folder, settings))
    if not found:
        raise DataSetError("no source has any data; give the folder of the data set with --data")
    return found


def _folder(settings: TrainingSettings, name: str, source: SourceSettings) -> Path | None:
    """Where the source lies; None for an optional one that is not there."""
    if source.layout == "phantom":
        return Path()
    if settings.data.root is None and not Path(source.path).is_absolute():
        raise DataSetError(f"source {name!r} has no folder; give that of the data set with --data DIR")
    folder = (settings.data.root or Path()) / source.path
    if folder.is_dir():
        return folder
    if not source.required:
        return None
    raise DataSetError(f"{folder}: no such folder, but source {name!r} expects its data there; check --data")


def _find(name: str, source: SourceSettings, folder: Path, settings: TrainingSettings) -> Source:
    validation: list[Example] = []
    unpaired: Sequence[Path] = ()
    train: list[Example]
    match source.layout:
        case "images":
            train, validation, unpaired = _image_examples(folder, source, settings)
        case "slides":
            from wsi_ihc.training.slide_examples import slide_examples

            train = slide_examples(folder, source, settings)
        case "he_only":
            train = _restained(folder, source, settings)
        case "phantom":
            from wsi_ihc.training.phantom_examples import phantom_examples

            train = phantom_examples(source, settings)
    if not train:
        raise DataSetError(f"{folder}: not a single pair for source {name!r}; docs/training.md shows the layouts")
    # A made target proves nothing: what is learnt from stain separation is not validated on it.
    if not validation and source.layout != "he_only":
        train, validation = _hold_out(train, settings.data.validation_pairs, source.case)
    return Source(name, source.weight, train, validation[: settings.data.validation_pairs], unpaired)


def _image_examples(
    folder: Path, source: SourceSettings, settings: TrainingSettings
) -> tuple[list[Example], list[Example], Sequence[Path]]:
    scale = working_scale(source, settings)
    if source.he and source.ihc:
        found = pairs.pair_folders(folder / source.he, folder / source.ihc)
    else:
        found = pairs.scan_pairs(folder)
    examples = [ImageExample(pair, scale) for pair in found.pairs if pair.split != "test"]
    train: list[Example] = [example for example in examples if example.pair.split not in _VALIDATION_SPLITS]
    validation: list[Example] = [example for example in examples if example.pair.split in _VALIDATION_SPLITS]
    # Without a test split the validation split is judged on, as MIST's: it may not choose among steps as well.
    judged = validation and not any(pair.split == "test" for pair in found.pairs)
    return train, [] if judged else validation, found.unpaired


def _restained(folder: Path, source: SourceSettings, settings: TrainingSettings) -> list[Example]:
    every = sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    files = [file for file in every if not file.name.startswith(".")]
    scale, mpp = working_scale(source, settings), settings.mpp or source.mpp or USUAL_MPP
    return [RestainedExample(str(file.relative_to(folder)), file, mpp, source.brown, scale) for file in files]


def working_scale(source: SourceSettings, settings: TrainingSettings) -> float:
    """Factor from the source's pixels to working pixels; 1 within a tenth, where resampling would only blur."""
    if source.mpp is None or settings.mpp is None:
        return 1.0
    factor = source.mpp / settings.mpp
    return 1.0 if abs(factor - 1) <= 0.10 else factor


def _hold_out(examples: list[Example], wanted: int, pattern: str | None = None) -> tuple[list[Example], list[Example]]:
    """Training and validation: whole cases in the order of their hashes, a quarter of the pairs at most.

    Where even the smallest case is more than that (a single slide), pairs are held out one by one.
    """
    limit = min(wanted, max(1, len(examples) // 4), len(examples) - 1)
    cases: dict[str, list[Example]] = {}
    for example in examples:
        cases.setdefault(case_of(example.name, pattern), []).append(example)
    if min(len(case) for case in cases.values()) > limit:
        cases = {example.name: [example] for example in examples}
    held: list[Example] = []
    for case in sorted(cases, key=lambda name: hashlib.blake2b(name.encode()).digest()):
        if len(held) + len(cases[case]) <= limit:
            held += cases[case]
    chosen = {id(example) for example in held}
    return [example for example in examples if id(example) not in chosen], held


def data_digest(sources: Sequence[Source]) -> str:
    """SHA-256 over names, sizes and both ends of every file: the same data set gives the same digest in seconds.

    Both ends: a PNG's checksum of all its pixels stands in its last bytes.
    """
    digest = hashlib.sha256()
    for source in sources:
        for example in (*source.train, *source.validation):
            digest.update(f"{source.name}\0{example.name}\0".encode())
            for file in _files(example):
                digest.update(file.stat().st_size.to_bytes(8, "little"))
                with file.open("rb") as stream:
                    digest.update(stream.read(4096))
                    stream.seek(max(0, file.stat().st_size - 4096))
                    digest.update(stream.read(4096))
    return digest.hexdigest()


def _files(example: Example) -> tuple[Path, ...]:
    match example:
        case ImageExample(pair=pair):
            return tuple(dict.fromkeys((pair.he, pair.ihc)))
        case RestainedExample(he=he):
            return (he,)
        case _:
            return ()
