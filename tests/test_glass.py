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
from wsi_ihc.geometry import Region, Size
from wsi_ihc.glass import glass_region, stained_glass
from wsi_ihc.slides import MemorySlide, SlideView
from wsi_ihc.tissue import TissueMask


def scene(tissue: np.ndarray) -> tuple[SlideView, TissueMask]:
    size = Size(*(16 * length for length in tissue.shape))
    slide = MemorySlide(np.full((*size, 3), 240, np.uint8), mpp=0.5)
    return SlideView.at(slide, 0.5), TissueMask(tissue, 16.0, size)


def test_the_square_lies_on_the_plane_and_far_from_tissue() -> None:
    tissue = np.zeros((60, 60), bool)
    tissue[:, :20] = True
    view, mask = scene(tissue)
    region = glass_region(view, mask, 256)
    assert region is not None
    assert region.left > 21 * 16
    assert region.intersection(Region(0, 0, *view.size)) == region


@pytest.mark.parametrize("tissue", [np.ones((60, 60), bool), np.eye(60, dtype=bool), np.zeros((12, 60), bool)])
def test_without_room_for_a_square_glass_is_white(tissue: np.ndarray) -> None:
    tissue = tissue | np.roll(tissue, 15, 1) | np.roll(tissue, 30, 1) | np.roll(tissue, 45, 1)
    view, mask = scene(tissue)
    assert glass_region(view, mask, 256) is None
    assert stained_glass(lambda window: window, view, mask, 256) == WHITE


def test_the_middle_decides_and_a_dark_answer_is_no_glass() -> None:
    view, mask = scene(np.zeros((60, 60), bool))

    def stain(window: np.ndarray) -> np.ndarray:
        stained = np.full_like(window, 10)
        stained[:, 64:-64, 64:-64] = window[:, 64:-64, 64:-64] + np.uint8([1, 2, 3])
        return stained

    assert stained_glass(stain, view, mask, 256) == (241, 242, 243)
    assert stained_glass(lambda window: window - 100, view, mask, 256) == WHITE


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
