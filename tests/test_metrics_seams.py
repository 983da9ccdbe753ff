"""The seam metric: silent on seamless images, loud on seams, and not fooled by JPEG."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from wsi_ihc.measures.seams import seam_score
from wsi_ihc.pairs.images import read_image


def _texture(side: int = 512, seed: int = 0) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(170, 400, (side, side, 3))
    return np.clip(cv2.GaussianBlur(noise, (0, 0), 3), 0, 255).astype(np.uint8)


def _tinted(
    image: NDArray[np.uint8], period: int, amount: float, offset: tuple[int, int] = (0, 0)
) -> NDArray[np.uint8]:
    """Every tile a little darker or lighter, as normalisation by the tile's own statistics leaves it."""
    rows, columns = (np.arange(n) - o for n, o in zip(image.shape[:2], offset, strict=True))
    gains = np.random.default_rng(1).uniform(1 - amount, 1 + amount, (32, 32))
    tint = gains[np.ix_(rows // period + 8, columns // period + 8)]
    return np.clip(image * tint[..., None], 0, 255).astype(np.uint8)


def test_seamless_is_one() -> None:
    score = seam_score(_texture(), 128)
    assert score.gradient == pytest.approx(1, abs=0.08)
    assert score.dab == pytest.approx(1, abs=0.25)
    assert score.gradient_p > 0.02
    assert score.dab_p > 0.02


@pytest.mark.parametrize("offset", [(0, 0), (37, 90)])
def test_tinted_tiles_are_found_at_their_borders(offset: tuple[int, int]) -> None:
    image = _tinted(_texture(), 128, 0.25, offset)
    at_borders, elsewhere = seam_score(image, 128, offset), seam_score(image, 128, (offset[0] + 64, offset[1] + 64))
    assert at_borders.dab > 1.3
    assert at_borders.dab_p == pytest.approx(0.001)
    assert at_borders.gradient > 1.1
    assert elsewhere.dab < 1.1


def test_score_grows_with_the_seam() -> None:
    scores = [seam_score(_tinted(_texture(), 128, amount), 128).gradient for amount in (0.0, 0.15, 0.4)]
    assert scores == sorted(scores)


def test_jpeg_blocks_are_no_seams() -> None:
    _, data = cv2.imencode(".jpg", _texture(), [cv2.IMWRITE_JPEG_QUALITY, 60])
    score = seam_score(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8), 128)
    assert score.gradient == pytest.approx(1, abs=0.08)


def test_flat_images_and_useless_grids() -> None:
    assert seam_score(np.full((256, 256, 3), 200, np.uint8), 64).gradient == 1
    with pytest.raises(ValueError, match="no interior"):
        seam_score(_texture(64), 16)
    with pytest.raises(ValueError, match="no border"):
        seam_score(_texture(64), 512)


@pytest.mark.data
def test_real_tiles_translated_one_by_one(shared_data: Path) -> None:
    """Normalised by the tile, repaired in tone (yet without a halo, so edges stay), and the H&E, which has no seams."""
    folder = shared_data / "pairs" / "urust_tiled_translation_seams"
    scores = {}
    for kind in ("he", "generated_in", "generated_kin"):
        mosaic = np.zeros((1536, 1536, 3), np.uint8)
        for path in (folder / kind).iterdir():
            row, column = (int(part) for part in path.name.split("_")[:2])
            mosaic[row * 512 :, (column - 2) * 512 :][:512, :512] = read_image(path)
        scores[kind] = seam_score(mosaic, 512, permutations=199)
    assert scores["he"].gradient == pytest.approx(1, abs=0.05)
    assert scores["he"].gradient_p > 0.1
    assert scores["generated_in"].gradient > scores["generated_kin"].gradient > 2
    assert scores["generated_in"].dab > scores["generated_kin"].dab > 2
    assert scores["generated_in"].gradient_p == pytest.approx(1 / 200)
