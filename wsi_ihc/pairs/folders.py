"""Pairs of an H&E image and its IHC image on disk: the layouts people keep them in, and how they are read.

Layouts, tried in this order (folder names in any case; ``split`` is train, test, val, …):

- ``folders``       ``HE/[split/]NAME`` beside ``IHC/[split/]NAME`` (BCI's), or ``split/{HE,IHC}/NAME``
- ``ab``            ``splitA/NAME`` beside ``splitB/NAME`` (MIST's and CycleGAN's)
- ``side_by_side``  ``[split/]NAME``, one image twice as wide as high, H&E left and IHC right (pix2pix "aligned")

Partners have the same file name without its extension.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.errors import DataSetError, SizesDifferError
from wsi_ihc.pairs.images import IMAGE_SUFFIXES, read_image

Layout = Literal["folders", "ab", "side_by_side"]

SPLITS = ("train", "val", "valid", "validation", "test")

_HE_FOLDERS = ("he", "h&e", "h_e", "a", "source")
_IHC_FOLDERS = ("ihc", "mihc", "b", "target")
# A 0 counts only where BCI has it (12345_train_0), or right behind a word that means a score: elsewhere it is a
# coordinate, a level or a number.
_SCORE = re.compile(
    r"(?:^|[_\s-])([123]\+)(?=[_.\s-]|$)|(?:^\d+_(?:train|test|val)_|(?:her2|score)[_\s-]?)(0)(?=[_.\s-]|$)", re.I
)


@dataclass(frozen=True, slots=True)
class Pair:
    """One H&E image and its partner; in the side-by-side layout both paths are the same file."""

    name: str
    he: Path
    ihc: Path
    score: str | None
    split: str | None
    layout: Layout


@dataclass(frozen=True, slots=True)
class PairFolder:
    """What a folder holds: the pairs, sorted by split and name, and the images whose partner is missing."""

    root: Path
    pairs: tuple[Pair, ...]
    unpaired: tuple[Path, ...]


def her2_score(name: str) -> str | None:
    """The HER2 score that a file name states (``00012_test_3+.png`` is ``3+``), None when it states none.

    In BCI it is the score of the slide, not of the patch.
    """
    found = _SCORE.search(Path(name).name)
    return (found[1] or found[2]) if found else None


def find_pairs(root: Path, split: str | None = None) -> list[Pair]:
    """The pairs under ``root``, of one split or of all.

    Raises:
        DataSetError: no such folder or split, no images, or an image without a partner.
    """
    return complete(scan_pairs(root, split))


def complete(found: PairFolder) -> list[Pair]:
    """The pairs of a folder in which every image must have its partner.

    Raises:
        DataSetError: one has none.
    """
    if found.unpaired:
        more = f" and {len(found.unpaired) - 1} more" if len(found.unpaired) > 1 else ""
        raise DataSetError(
            f"{found.unpaired[0]}: no partner of this name{more}; add the other image or remove this one"
        )
    return list(found.pairs)


def scan_pairs(root: Path, split: str | None = None) -> PairFolder:
    """As ``find_pairs``, but images without a partner are listed instead of refused.

    Raises:
        DataSetError: no such folder or split, or no pair at all.
    """
    if not root.is_dir():
        raise DataSetError(f"{root}: no such folder; expected HE/ and IHC/ with images of the same names")
    layout, sources = _sources(root)
    splits = sorted({name for name, _, _ in sources if name}, key=_split_order)
    if split is not None and splits:
        sources = [source for source in sources if source[0] == split.lower()]
        if not sources:
            raise DataSetError(f"{root}: no split {split!r}; it has {', '.join(splits)}")
    pairs: list[Pair] = []
    unpaired: list[Path] = []
    for name, he, ihc in sorted(sources, key=lambda source: _split_order(source[0])):
        matched, alone = _match(he, ihc, name, layout)
        pairs += matched
        unpaired += alone
    if not pairs and not unpaired:
        raise DataSetError(
            f"{root}: no pairs; expected HE/ beside IHC/, trainA/ beside trainB/, or images of two halves"
        )
    return PairFolder(root, tuple(pairs), tuple(unpaired))


def pair_folders(he: Path, ihc: Path) -> PairFolder:
    """The pairs of two parallel folders, whatever their names.

    Raises:
        DataSetError: a folder is missing or neither holds an image.
    """
    for folder in (he, ihc):
        if not folder.is_dir():
            raise DataSetError(f"{folder}: no such folder")
    pairs, unpaired = _match(he, ihc, None, "folders")
    if not pairs and not unpaired:
        raise DataSetError(f"{he}: no images; expected one of {', '.join(sorted(IMAGE_SUFFIXES))}")
    return PairFolder(he, tuple(pairs), tuple(unpaired))


def image_files(folder: Path) -> list[Path]:
    """Images directly in ``folder``, sorted by name; hidden files are not images."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))


def read_pair(pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """H&E and IHC, both (height, width, 3) uint8 RGB of the same size.

    Raises:
        DataSetError: an image cannot be read, or a side-by-side image is not twice as wide as high.
        SizesDifferError: the two are not of one size.
    """
    if pair.layout == "side_by_side":
        both = read_image(pair.he)
        height, width = both.shape[:2]
        if width != 2 * height:
            raise DataSetError(f"{pair.he}: {width} x {height} px; a side-by-side pair is twice as wide as high")
        return both[:, :height], both[:, height:]
    he, ihc = read_image(pair.he), read_image(pair.ihc)
    if he.shape != ihc.shape:
        raise SizesDifferError(
            f"{pair.ihc}: {ihc.shape[1]} x {ihc.shape[0]} px but its H&E {he.shape[1]} x {he.shape[0]}; crop to match"
        )
    return he, ihc


def _sources(root: Path) -> tuple[Layout, list[tuple[str | None, Path, Path]]]:
    """The layout, and (split, H&E folder, IHC folder) for each folder of pairs."""
    found: list[tuple[str | None, Path, Path]] = list(_parallel_folders(root))
    if found:
        return "folders", found
    children = {child.name.lower(): child for child in root.iterdir() if child.is_dir()}
    lettered = [s for s in SPLITS if f"{s}a" in children and f"{s}b" in children]
    if lettered:
        return "ab", [(s, children[f"{s}a"], children[f"{s}b"]) for s in lettered]
    found = [(s, children[s], children[s]) for s in SPLITS if s in children]
    return "side_by_side", found or [(None, root, root)]


def _parallel_folders(root: Path) -> Iterator[tuple[str | None, Path, Path]]:
    if both := _he_and_ihc(root):
        he, ihc = both
        splits_of_he, splits_of_ihc = _splits(he), _splits(ihc)
        splits = sorted(splits_of_he.keys() | splits_of_ihc.keys())
        for split in splits:
            if split in splits_of_he and split in splits_of_ihc:
                yield split, splits_of_he[split], splits_of_ihc[split]
        if not splits:
            yield None, he, ihc
        return
    for split, folder in _splits(root).items():
        if both := _he_and_ihc(folder):
            yield split, *both


def _splits(folder: Path) -> dict[str, Path]:
    """Folders of splits by their name in lower case: ``Train`` and ``TEST`` are splits too."""
    found = {child.name.lower(): child for child in folder.iterdir() if child.is_dir()}
    return {split: found[split] for split in SPLITS if split in found}


def _he_and_ihc(folder: Path) -> tuple[Path, Path] | None:
    children = {child.name.lower(): child for child in folder.iterdir() if child.is_dir()}
    he = next((children[name] for name in _HE_FOLDERS if name in children), None)
    ihc = next((children[name] for name in _IHC_FOLDERS if name in children), None)
    return (he, ihc) if he and ihc else None


def _match(he: Path, ihc: Path, split: str | None, layout: Layout) -> tuple[list[Pair], list[Path]]:
    lefts, rights = _by_stem(he), _by_stem(ihc)
    common = sorted(lefts.keys() & rights.keys())
    pairs = [Pair(name, lefts[name], rights[name], her2_score(name), split, layout) for name in common]
    alone = [lefts[name] for name in sorted(lefts.keys() - rights.keys())]
    alone += [rights[name] for name in sorted(rights.keys() - lefts.keys())]
    return pairs, alone


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in image_files(folder):
        if path.stem in found:
            raise DataSetError(f"{path}: {found[path.stem].name} has the same name; which one belongs to the pair?")
        found[path.stem] = path
    return found


def _split_order(split: str | None) -> int:
    return SPLITS.index(split) if split in SPLITS else len(SPLITS)
