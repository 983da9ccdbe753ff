"""The colour of what is not tissue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.conftest import stained_island, write_slide
from wsi_ihc.config import ConversionSettings, load_settings
from wsi_ihc.conversion.glass import slide_glass, stained_glass
from wsi_ihc.convert import convert_slide
from wsi_ihc.pyramid.codecs import WHITE
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.slides import MemorySlide, SlideView
from wsi_ihc.tissue import TissueMask
from wsi_ihc.tissue.segmentation import ASSUMED_GLASS

GLASS = (243, 240, 241)


def scene(tissue: np.ndarray, glass: tuple[int, int, int] = GLASS) -> tuple[SlideView, TissueMask, np.ndarray]:
    """A view of glass with magenta tissue, 16 px for each of the mask's; its pixels may still be changed."""
    size = Size(*(16 * length for length in tissue.shape))
    pixels = np.full((*size, 3), glass, np.uint8)
    pixels[np.kron(tissue, np.ones((16, 16), bool))] = (190, 90, 160)
    return SlideView.at(MemorySlide(pixels, mpp=0.5), 0.5), TissueMask(tissue, 16.0, size), pixels


@pytest.mark.parametrize("columns", [slice(0, 20), slice(0, 59), slice(0, None, 4)])
def test_the_slide_s_glass_is_found_beside_any_tissue(columns: slice) -> None:
    tissue = np.zeros((40, 60), bool)
    tissue[:, columns] = True
    view, mask, _ = scene(tissue)
    assert slide_glass(view, mask) == GLASS


def test_what_was_never_scanned_and_pen_are_no_glass() -> None:
    tissue = np.zeros((40, 60), bool)
    tissue[:, :10] = True
    view, mask, _ = scene(tissue, (255, 255, 255))
    assert slide_glass(view, mask) == ASSUMED_GLASS
    view, mask, pixels = scene(tissue)
    pixels[:, 200:] = (40, 40, 160)
    assert slide_glass(view, mask) == ASSUMED_GLASS


def test_the_middle_decides_and_a_dark_answer_is_no_glass() -> None:
    def stain(window: np.ndarray) -> np.ndarray:
        stained = np.full_like(window, 10)
        stained[:, 64:-64, 64:-64] = window[:, 64:-64, 64:-64] + np.uint8([1, 2, 3])
        return stained

    assert stained_glass(stain, (240.4, 239.6, 240), 256) == (241, 242, 243)
    assert stained_glass(lambda window: window - np.uint8(100), (240, 240, 240), 256) == WHITE


def test_a_learned_generator_leaves_no_halo(tmp_path: Path) -> None:
    pixels = np.full((1024, 2048, 3), 243, np.uint8)
    pixels[:, :1024] = stained_island(1024, 1024)
    write_slide(tmp_path / "slide.tiff", pixels)
    outputs, named = [], []
    for core in ("512", "1024"):
        choices = ("generator.name=her2-demo", "output.compression=deflate", f"tiling.core_px={core}")
        settings = load_settings(ConversionSettings, None, {}, (*choices, "compute.precision=float32"))
        report = convert_slide(tmp_path / "slide.tiff", tmp_path / f"{core}.ome.tiff", settings)
        named.append(report.provenance.glass)
        outputs.append([level.asarray() for level in tifffile.TiffFile(report.output).series[0].levels])
    for level, other in zip(*outputs, strict=True):
        far = level[:, level.shape[1] * 3 // 4 :]
        assert (far == far[0, 0]).all()
        assert far.min() > 240
        assert far.max() < 252
        assert np.abs(level.astype(int) - other).max() <= 1
    assert named == [f"#{bytes(levels[0][0, -1]).hex()}" for levels in outputs], "the provenance says which colour"
