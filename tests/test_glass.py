"""The colour of what is not tissue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.conftest import stained_island, write_slide
from wsi_ihc.config import ConversionSettings, load_settings
from wsi_ihc.convert import convert_slide
from wsi_ihc.encoding import WHITE
from wsi_ihc.geometry import Size
from wsi_ihc.glass import colour_of_glass, read_glass
from wsi_ihc.slides import MemorySlide, SlideView
from wsi_ihc.tissue import TissueMask


def read(tissue: np.ndarray) -> np.ndarray:
    """The square of glass of a slide whose red tells the column: 16 px for each of the mask's, green 240."""
    size = Size(*(16 * length for length in tissue.shape))
    pixels = np.full((*size, 3), 240, np.uint8)
    pixels[..., 0] = np.arange(size.width) // 16
    view = SlideView.at(MemorySlide(pixels, mpp=0.5), 0.5)
    return read_glass(view, TissueMask(tissue, 16.0, size), 256)


def test_glass_is_read_far_from_tissue() -> None:
    tissue = np.zeros((60, 90), bool)
    tissue[:, :20] = True
    glass = read(tissue)
    assert glass.shape == (256, 256, 3)
    assert glass[..., 0].min() >= 30
    assert (glass[..., 1] == 240).all()


@pytest.mark.parametrize("shape", [(60, 60), (12, 60)])
def test_where_tissue_leaves_no_room_it_is_usual_glass(shape: tuple[int, int]) -> None:
    tissue = np.zeros(shape, bool)
    tissue[:, ::12] = True
    assert (read(tissue) == 245).all()


def test_the_middle_decides_and_a_dark_answer_is_no_glass() -> None:
    stained = np.full((256, 256, 3), 10, np.uint8)
    assert colour_of_glass(stained) == WHITE
    stained[64:-64, 64:-64] = (241, 242, 243)
    assert colour_of_glass(stained) == (241, 242, 243)


def test_a_learned_generator_leaves_no_halo(tmp_path: Path) -> None:
    pixels = np.full((1024, 2048, 3), 243, np.uint8)
    pixels[:, :1024] = stained_island(1024, 1024)
    write_slide(tmp_path / "slide.tiff", pixels)
    outputs = []
    for core in ("512", "1024"):
        choices = ("generator.name=her2-demo", "output.compression=deflate", f"tiling.core_px={core}")
        settings = load_settings(ConversionSettings, None, {}, (*choices, "compute.precision=float32"))
        report = convert_slide(tmp_path / "slide.tiff", tmp_path / f"{core}.ome.tiff", settings)
        outputs.append([level.asarray() for level in tifffile.TiffFile(report.output).series[0].levels])
    for level, other in zip(*outputs, strict=True):
        far = level[:, level.shape[1] * 3 // 4 :]
        assert (far == far[0, 0]).all()
        assert far.min() > 240
        assert far.max() < 252
        assert np.abs(level.astype(int) - other).max() <= 1
