"""Output formats and their layers: names, files, and a plane that lies beside the stain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.conftest import provenance, stained_island
from wsi_ihc.config import OutputSettings
from wsi_ihc.conversion.store import StoreLayout, TileStore
from wsi_ihc.errors import OutputError, SettingsError
from wsi_ihc.output.finishing import check_output, name_output
from wsi_ihc.output.formats import format_of, open_output
from wsi_ihc.output.names import OutputName, output_stem
from wsi_ihc.output.ometiff.format import OmeTiff, layer_file
from wsi_ihc.pyramid.codecs import Compression
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.pyramid.layers import STAINED, Layer
from wsi_ihc.pyramid.pyramid import level_tiles

SIZE = Size(1100, 1500)

# Names


@pytest.mark.parametrize(
    ("slide", "stem"),
    [
        ("case.7.svs", "case.7_ihc"),
        ("case.7", "case.7_ihc"),
        ("case.ome.tiff", "case_ihc"),
        ("case.OME.TIF", "case_ihc"),
        ("2026.11.28 case 3.ndpi", "2026.11.28 case 3_ihc"),
        ("case.v2.mrxs", "case.v2_ihc"),
    ],
)
def test_only_a_suffix_of_slides_is_cut_off(slide: str, stem: str) -> None:
    assert output_stem(Path(slide)) == stem


def test_a_folder_has_no_suffix(tmp_path: Path) -> None:
    (tmp_path / "case.tiff").mkdir()
    assert output_stem(tmp_path / "case.tiff") == "case.tiff_ihc"


def test_everything_beside_an_output_is_named_after_it() -> None:
    name = OutputName.of_slide(Path("in/case.7.svs"), Path("out"))
    assert name.path == Path("out/case.7_ihc.ome.tiff")
    assert name.sidecar == Path("out/case.7_ihc.json")
    assert name.part == Path("out/case.7_ihc.ome.tiff.part")
    assert name.store == Path("out/case.7_ihc.ome.tiff.blocks.zarr")
    assert name.lock == Path("out/.case.7_ihc.ome.tiff.lock")
    assert layer_file(name.path, "darkness") == Path("out/case.7_ihc.darkness.ome.tiff")
    assert layer_file(name.part, "darkness") == Path("out/case.7_ihc.darkness.ome.tiff.part")


def test_the_suffix_chooses_the_format() -> None:
    assert all(isinstance(format_of(Path(f"a{suffix}")), OmeTiff) for suffix in (".ome.tiff", ".TIF"))
    with pytest.raises(SettingsError, match=r"give it a name that ends in \.ome\.tiff"):
        format_of(Path("a.zarr"))


# A layer beside the stain


def two_layers(path: Path, compression: Compression = "deflate") -> TileStore:
    """The stain, and one minus its green as a plane of one channel."""
    plane = stained_island(*SIZE)
    layers = (Layer(STAINED), Layer("darkness", compression, channels=1, fill=(0,)))
    store = TileStore.create(path, StoreLayout(SIZE, 512, layers, 0.5), {})
    for row, column in np.ndindex(store.layout.grid):
        block = plane[row * 512 : (row + 1) * 512, column * 512 : (column + 1) * 512]
        store.put(row, column, {STAINED: block, "darkness": 255 - block[..., 1:2]})
    return store


def written(store: TileStore, output: Path) -> None:
    name, form, layers = OutputName(output), OmeTiff(), [layer.name for layer in store.layout.layers]
    with store.finished_pyramids() as pyramids:
        form.write(pyramids, name.part, provenance(SIZE))
    check_output(form, name.part, layers)
    name_output(form, name.part, output, layers)


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_a_layer_is_a_file_beside_the_output(tmp_path: Path, compression: Compression) -> None:
    store, output = two_layers(tmp_path / "store", compression), tmp_path / "case_ihc.ome.tiff"
    written(store, output)
    assert sorted(path.name for path in tmp_path.glob("*.tiff*")) == [
        "case_ihc.darkness.ome.tiff",
        "case_ihc.ome.tiff",
    ]
    pyramids = open_output(output)
    assert list(pyramids) == [STAINED, "darkness"]
    for name, pyramid in pyramids.items():
        wanted = store.pyramid(name)
        assert pyramid.levels == wanted.levels
        for level in range(len(wanted.levels)):
            assert list(level_tiles(pyramid, level)) == list(level_tiles(wanted, level))
    found = tifffile.imread(tmp_path / "case_ihc.darkness.ome.tiff")
    assert np.abs(found.astype(int) - (255 - stained_island(*SIZE)[..., 1])).mean() < (
        4 if compression == "jpeg" else 1e-9
    )
    for file in OmeTiff().files(output, pyramids):
        assert OmeTiff().verify(file).problems == ()


def test_the_stain_has_the_same_bytes_with_and_without_a_layer(tmp_path: Path) -> None:
    both = two_layers(tmp_path / "both")
    alone = TileStore.create(tmp_path / "alone", StoreLayout(SIZE, 512, (Layer(STAINED),), 0.5), {})
    for row, column in np.ndindex(alone.layout.grid):
        plane = stained_island(*SIZE)[row * 512 : (row + 1) * 512, column * 512 : (column + 1) * 512]
        alone.put(row, column, {STAINED: plane})
    written(both, tmp_path / "a.ome.tiff")
    written(alone, tmp_path / "b.ome.tiff")
    assert (tmp_path / "a.ome.tiff").read_bytes() == (tmp_path / "b.ome.tiff").read_bytes()


def test_an_image_of_another_output_is_no_layer(tmp_path: Path) -> None:
    written(two_layers(tmp_path / "store"), tmp_path / "case.ome.tiff")
    (tmp_path / "case.ome.tiff").rename(tmp_path / "case.other.ome.tiff")
    written(two_layers(tmp_path / "store"), tmp_path / "case.ome.tiff")
    assert list(open_output(tmp_path / "case.ome.tiff")) == [STAINED, "darkness"]


def test_a_layer_that_is_damaged_keeps_the_output_from_its_name(tmp_path: Path) -> None:
    store, name = two_layers(tmp_path / "store"), OutputName(tmp_path / "a.ome.tiff")
    with store.finished_pyramids() as pyramids:
        OmeTiff().write(pyramids, name.part, provenance(SIZE))
    damaged = layer_file(name.part, "darkness")
    damaged.write_bytes(damaged.read_bytes()[:-2000])
    with pytest.raises(OutputError, match=r"darkness.*failed its verification"):
        check_output(OmeTiff(), name.part, [STAINED, "darkness"])


def test_the_stain_itself_must_be_in_colour(tmp_path: Path) -> None:
    written(two_layers(tmp_path / "store"), tmp_path / "a.ome.tiff")
    file = tmp_path / "a.darkness.ome.tiff"
    file.write_bytes(file.read_bytes().replace(b'K="layer"', b'K="loser"'))
    assert "levels: level 0: not 8 bit RGB, interleaved" in OmeTiff().verify(file).problems


def test_what_every_output_holds_follows_from_the_settings() -> None:
    assert OmeTiff().stained(OutputSettings(compression="jpeg", quality=70)) == Layer(STAINED, "jpeg", 70)
