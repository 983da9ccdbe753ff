"""Pairs cut from aligned slides, through the same readers as convert.

Both slides must show the same field: their level 0 planes start at the same point of the tissue. The check of the
data set says where they do not look alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wsi_ihc.errors import DataSetError
from wsi_ihc.pairs import folders as pairs
from wsi_ihc.pyramid.geometry import Region
from wsi_ihc.slides import SlideView, open_slide
from wsi_ihc.tissue import find_tissue
from wsi_ihc.training.config import TrainingSettings
from wsi_ihc.training.data_settings import SourceSettings
from wsi_ihc.training.examples import Example, SlideExample


def slide_examples(folder: Path, source: SourceSettings, settings: TrainingSettings) -> list[Example]:
    """Windows of ``source.window_px`` working pixels with enough tissue, of every pair of slides in the folder.

    Raises:
        DataSetError: without a pair of slides, or a training resolution to read them at.
        SlideError: for a slide that cannot be read.
    """
    if settings.mpp is None:
        raise DataSetError(f"{folder}: slides need the resolution to work at; set mpp, for example mpp: 0.5")
    examples: list[Example] = []
    for he_path, ihc_path in _slide_pairs(folder, source):
        he = SlideView.at(open_slide(he_path), settings.mpp)
        ihc = SlideView.at(open_slide(ihc_path), settings.mpp)
        score = pairs.her2_score(he_path.name) or pairs.her2_score(ihc_path.name)
        for region in _tissue_windows(he, ihc, source):
            name = f"{he_path.stem}/{region.top}_{region.left}"
            examples.append(SlideExample(name, score, he, ihc, region))
    return examples


def _slide_pairs(folder: Path, source: SourceSettings) -> Iterator[tuple[Path, Path]]:
    """Two slides, or those of equal stem in two folders."""
    he, ihc = folder / (source.he or "HE"), folder / (source.ihc or "IHC")
    if he.is_file() and ihc.is_file():
        yield he, ihc
        return
    for side in (he, ihc):
        if not side.is_dir():
            raise DataSetError(f"{side}: no such slide or folder of slides; name both with he and ihc of the source")
    partners = {path.stem: path for path in sorted(ihc.iterdir()) if path.is_file()}
    for path in sorted(he.iterdir()):
        if path.is_file() and path.stem in partners:
            yield path, partners[path.stem]


def _tissue_windows(he: SlideView, ihc: SlideView, source: SourceSettings) -> Iterator[Region]:
    """The grid's windows that lie on both slides and hold enough of the H&E slide's tissue."""
    side = source.window_px
    height, width = min(he.size.height, ihc.size.height), min(he.size.width, ihc.size.width)
    tissue = find_tissue(he)
    for top in range(0, height - side + 1, side):
        for left in range(0, width - side + 1, side):
            region = Region(top, left, side, side)
            if tissue.fraction(region) >= source.min_tissue:
                yield region
