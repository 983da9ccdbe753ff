"""Real thumbnails; what is asked of them is what a look at the overlays has confirmed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from wsi_ihc.pyramid.geometry import Region
from wsi_ihc.slides import SlideView, open_slide
from wsi_ihc.tissue import find_tissue, tissue_from_thumbnail
from wsi_ihc.tissue.shapes import dilated

pytestmark = pytest.mark.data


def rgb(path: Path, shrink: int = 1) -> NDArray[np.uint8]:
    picture = cv2.imread(str(path))[..., ::-1]
    height, width = picture.shape[0] // shrink, picture.shape[1] // shrink
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def test_dice_with_the_reference_mask(shared_data: Path) -> None:
    """The reference is drawn about 400 um outside the tissue (16 um/px by the width of the glass) and has no holes."""
    folder = shared_data / "tiles" / "tissue_mask_gt_bigpicture"
    reference = cv2.imread(str(folder / "29_mask_ref.png"), cv2.IMREAD_GRAYSCALE)[:3445] > 0
    tissue = tissue_from_thumbnail(rgb(folder / "29.jpg"), 16.0)

    def dice(margin_um: float) -> float:
        mask = dilated(tissue, margin_um / 16)
        return float(2 * (mask & reference).sum() / (mask.sum() + reference.sum()))

    assert (tissue & reference).sum() / tissue.sum() > 0.99
    assert dice(32) > 0.90
    assert dice(400) > 0.95


@pytest.mark.parametrize("name", ["no-tissue.png", "no-tissue2.png", "no-tissue-line.png"])
def test_glass_with_dust_and_an_air_edge_is_empty(shared_data: Path, name: str) -> None:
    assert not tissue_from_thumbnail(rgb(shared_data / "tiles/he_histolab_pens_and_tiles" / name, 8), 8.0).any()


@pytest.mark.parametrize(
    ("path", "shrink"),
    [
        ("he_torchstain/source.png", 16),
        ("he_torchstain/target.png", 16),
        ("he_stardist/histo.jpg", 32),
        ("he_henorm_veta/example1.tif", 32),
        ("he_histolab_pens_and_tiles/liver-level2-10907-7808-11707-8608.png", 1),
        ("he_histolab_pens_and_tiles/tcga-green-pen.png", 4),
    ],
)
def test_fields_of_nothing_but_tissue_are_whole(shared_data: Path, path: str, shrink: int) -> None:
    assert tissue_from_thumbnail(rgb(shared_data / "tiles" / path, shrink), 8.0).mean() > 0.98


@pytest.mark.parametrize(
    ("name", "low", "high"), [("21-rgb", 0.29, 0.36), ("424-rgb", 0.07, 0.10), ("127-rgb", 0.07, 0.10)]
)
def test_pale_sections_are_found(shared_data: Path, name: str, low: float, high: float) -> None:
    share = tissue_from_thumbnail(rgb(shared_data / "tiles/he_breast_slide_thumbs_tupac" / f"{name}.png"), 45.0).mean()
    assert low < share < high


def test_a_slide_with_almost_nothing_on_it(shared_data: Path) -> None:
    slide = open_slide(shared_data / "slides/aperio_svs_luna_1065626/1065626.svs")
    try:
        view = SlideView.at(slide, 0.5)
        mask = find_tissue(view)
    finally:
        slide.close()
    assert 0.01 < mask.fraction(Region(0, 0, *view.size)) < 0.025
    assert mask.any(Region(6100, 4700, 512, 1024))
    assert not mask.any(Region(0, 6000, 3000, 5000))
