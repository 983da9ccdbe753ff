"""The routes of CONTRIBUTING, each walked once from outside: a toy reader, a toy output format, a toy layer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from wsi_ihc.config import ConversionSettings, OutputSettings, SlideSettings, load_settings
from wsi_ihc.conversion.executors import Executor, run_dask, run_serial
from wsi_ihc.conversion.measured import MeasuredLayer
from wsi_ihc.convert import convert_slide
from wsi_ihc.errors import OutputError, SettingsError, UnreadableSlideError
from wsi_ihc.output import formats
from wsi_ihc.output.provenance import Provenance
from wsi_ihc.output.verification_report import Check, VerificationReport
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.pyramid.layers import STAINED, Layer
from wsi_ihc.pyramid.levels import Pixels, tile_grid
from wsi_ihc.pyramid.pyramid import TilePyramid, level_tiles
from wsi_ihc.slides import opening
from wsi_ihc.slides.memory import MemorySlide

SETTINGS = load_settings(
    ConversionSettings,
    None,
    {"generator.name": "identity", "output.compression": "deflate", "tiling.core_px": 512},
)

# A reader: one file with an opener, and one case


def open_numpy(path: Path, settings: SlideSettings) -> MemorySlide:
    """An array that was saved by NumPy as a slide."""
    return MemorySlide(np.load(path), mpp=settings.mpp, path=path, name="numpy")


def test_a_reader_is_an_opener_and_a_case(small_slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = tifffile.imread(small_slide)
    np.save(tmp_path / "slide.npy", pixels)
    opened = opening._opened

    def with_a_case(name: Any, path: Path, settings: SlideSettings) -> Any:
        match name:
            case "numpy":
                return open_numpy(path, settings)
            case _:
                return opened(name, path, settings)

    monkeypatch.setattr(opening, "_opened", with_a_case)
    monkeypatch.setattr(opening, "_readers", lambda path, kind: ("numpy",))
    settings = SETTINGS.model_copy(update={"slide": SlideSettings(mpp=0.5)})
    report = convert_slide(tmp_path / "slide.npy", tmp_path / "out.ome.tiff", settings, executor=run_serial)
    assert report.provenance.reader == "numpy"
    middle = slice(400, 900)
    np.testing.assert_array_equal(tifffile.imread(report.output)[middle, middle], pixels[middle, middle])


# An output format: one object, here a folder with a file for every tile


@dataclass(frozen=True)
class FolderPyramid:
    path: Path
    levels: tuple[Size, ...]
    codec: Any
    mpp: float | None

    def tile(self, level: int, row: int, column: int) -> bytes | None:
        return (self.path / f"{level}.{row}.{column}").read_bytes()


@dataclass(frozen=True)
class Tiles:
    suffixes: tuple[str, ...] = (".tiles",)
    is_folder: bool = True

    def stained(self, settings: OutputSettings) -> Layer:
        return Layer(STAINED, settings.compression, settings.quality)

    def files(self, output: Path, layers: Iterable[str]) -> tuple[Path, ...]:
        return (output,)

    def write(self, pyramids: Mapping[str, TilePyramid], part: Path, provenance: Provenance) -> None:
        for name, pyramid in pyramids.items():
            (part / name).mkdir()
            for level, size in enumerate(pyramid.levels):
                cells = np.ndindex(tile_grid(size))
                for (row, column), tile in zip(cells, level_tiles(pyramid, level), strict=True):
                    (part / name / f"{level}.{row}.{column}").write_bytes(tile)
            facts = {"levels": pyramid.levels, "mpp": pyramid.mpp, "channels": pyramid.codec.channels}
            (part / name / "facts.json").write_text(json.dumps(facts))

    def open(self, path: Path) -> Mapping[str, TilePyramid]:
        if not path.is_dir():
            raise UnreadableSlideError(f"{path}: no folder of tiles")
        return {folder.name: self._open(folder) for folder in sorted(path.iterdir(), reverse=True)}

    def verify(self, path: Path, *, quick: bool = False, with_sidecar: bool = True) -> VerificationReport:
        return VerificationReport(path, (Check("opens", () if STAINED in self.open(path) else ("no stain",)),))

    def _open(self, folder: Path) -> FolderPyramid:
        facts = json.loads((folder / "facts.json").read_text())
        fill = (255,) * facts["channels"]
        layer = Layer(folder.name, "deflate", channels=facts["channels"], fill=fill)
        return FolderPyramid(folder, tuple(Size(*size) for size in facts["levels"]), layer.codec, facts["mpp"])


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, Tiles()))


@pytest.mark.usefixtures("tiles")
def test_a_format_is_one_object_in_the_list(small_slide: Path, tmp_path: Path) -> None:
    output, tiff = tmp_path / "out.tiles", tmp_path / "plain.ome.tiff"
    report = convert_slide(small_slide, output, SETTINGS, executor=run_serial, layers=[DARKNESS])
    convert_slide(small_slide, tiff, SETTINGS, executor=run_serial, layers=[DARKNESS])
    assert report.output.is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {
        "out.tiles", "out.tiles.json", "plain.ome.tiff", "plain.darkness.ome.tiff", "plain.json",
    }  # fmt: skip
    ours, theirs = formats.open_output(output), formats.open_output(tiff)
    assert list(ours) == list(theirs) == [STAINED, "darkness"]
    for name, pyramid in ours.items():
        for level in range(len(pyramid.levels)):
            assert list(level_tiles(pyramid, level)) == list(level_tiles(theirs[name], level))


@pytest.mark.usefixtures("tiles")
def test_a_folder_as_output_is_guarded_and_replaced_as_a_file_is(small_slide: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.tiles"
    output.write_text("a file")
    with pytest.raises(OutputError, match="a file has this name"):
        convert_slide(small_slide, output, SETTINGS, executor=run_serial)
    output.unlink()
    convert_slide(small_slide, output, SETTINGS, executor=run_serial)
    with pytest.raises(OutputError, match="exists already"):
        convert_slide(small_slide, output, SETTINGS, executor=run_serial)
    convert_slide(small_slide, output, SETTINGS, executor=run_serial, layers=[DARKNESS], overwrite=True)
    assert sorted(path.name for path in output.iterdir()) == ["darkness", STAINED]


@pytest.mark.usefixtures("tiles")
def test_the_refusal_names_every_format(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"ends in \.ome\.tiff or \.tiles"):
        formats.format_of(tmp_path / "out.zarr")


# A layer: one measure and one Layer


def darkness(windows: Pixels, cores: Pixels) -> Pixels:
    """How dark the middle of each H&E window is."""
    halo, side = (windows.shape[1] - cores.shape[1]) // 2, cores.shape[1]
    middle = windows[:, halo : halo + side, halo : halo + side]
    darkest: NDArray[np.uint8] = 255 - middle.max(axis=3, keepdims=True)
    return darkest


DARKNESS = MeasuredLayer(Layer("darkness", "deflate", channels=1, fill=(0,)), darkness)


@pytest.mark.parametrize("executor", [run_serial, run_dask])
@pytest.mark.parametrize("core_px", [512, 1024])
def test_a_layer_is_a_measure_and_a_layer(executor: Executor, core_px: int, small_slide: Path, tmp_path: Path) -> None:
    tiling = SETTINGS.tiling.model_copy(update={"core_px": core_px})
    settings = SETTINGS.model_copy(update={"tiling": tiling})
    for name, layers in (("plain", []), ("both", [DARKNESS])):
        convert_slide(small_slide, tmp_path / f"{name}.ome.tiff", settings, executor=executor, layers=layers)
    assert (tmp_path / "plain.ome.tiff").read_bytes() == (tmp_path / "both.ome.tiff").read_bytes()
    plane, source = tifffile.imread(tmp_path / "both.darkness.ome.tiff"), tifffile.imread(small_slide)
    middle = slice(400, 900)
    np.testing.assert_array_equal(plane[middle, middle], 255 - source.max(axis=2)[middle, middle])
    assert (plane[:40, :40] == 0).all()


def test_a_layer_of_an_older_output_is_not_taken_for_one_of_the_new(small_slide: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.ome.tiff"
    convert_slide(small_slide, output, SETTINGS, executor=run_serial, layers=[DARKNESS])
    other = SETTINGS.model_copy(update={"output": OutputSettings(compression="jpeg")})
    other = other.model_copy(update={"generator": other.generator.model_copy(update={"name": "recolour"})})
    convert_slide(small_slide, output, other, executor=run_serial, overwrite=True)
    assert list(formats.open_output(output)) == [STAINED]


def test_the_file_of_a_layer_is_not_replaced_unasked(small_slide: Path, tmp_path: Path) -> None:
    (tmp_path / "out.darkness.ome.tiff").write_text("mine")
    with pytest.raises(OutputError, match=r"darkness.*exists already"):
        convert_slide(small_slide, tmp_path / "out.ome.tiff", SETTINGS, executor=run_serial, layers=[DARKNESS])


@pytest.mark.parametrize("name", ["", "../a", "a.b", STAINED])
def test_a_layer_needs_a_name_of_its_own(name: str) -> None:
    with pytest.raises(ValueError, match="names no layer"):
        MeasuredLayer(Layer(name), darkness)
