"""The OME-TIFF: its bytes, its metadata, its chain of levels, and that it is never half there."""

from __future__ import annotations

import errno
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import ome_types
import pytest
import tifffile

from tests.conftest import provenance, write_store
from wsi_ihc.conversion.store import StoreLayout, TileStore
from wsi_ihc.conversion.store.coarse import complete_levels
from wsi_ihc.errors import OutputError, StorageError
from wsi_ihc.output.finishing import check_output, name_output
from wsi_ihc.output.ometiff import (
    RESEARCH_USE_ONLY,
    Provenance,
    sidecar_path,
    write_sidecar,
)
from wsi_ihc.output.ometiff.bigtiff import link_levels, read_chain, read_sub_directories
from wsi_ihc.output.ometiff.format import OmeTiff
from wsi_ihc.output.ometiff.jpeg import read_jpeg_header
from wsi_ihc.output.ometiff.omexml import nominal_magnification, ome_xml
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.pyramid.layers import STAINED, Layer

OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"

PROVENANCE = provenance(
    Size(1700, 2500),
    source_mpp=0.4990,
    source_vendor="aperio",
    reader="openslide",
    mpp=0.499,
    generator="recolour",
    generator_sha256="ab12",
    tissue_source="auto",
    tissue_fraction=0.25,
    halo_px=88,
    quality=85,
    versions={"wsi-ihc": "0.1.0", "torch": "2.13.0"},
)


def a_store(path: Path, height: int = 900, width: int = 1300, core: int = 512, compression: str = "jpeg") -> TileStore:
    """Stained in its left half, glass in the right."""
    layout = StoreLayout(Size(height, width), core, (Layer(STAINED, compression),))  # type: ignore[arg-type]
    store = TileStore.create(path, layout, {})
    y, x = np.mgrid[:height, :width].astype(np.float32)
    plane = np.stack([150 + 80 * np.sin(x / 97), 120 + 80 * np.cos(y / 83), 90 + y / 20], axis=-1).astype(np.uint8)
    plane[:, width // 2 :] = 255
    for row, column in np.ndindex(layout.grid):
        part = plane[row * core : (row + 1) * core, column * core : (column + 1) * core]
        if part.min() < 255:
            store.put(row, column, {STAINED: part})
    return store


# The file


def test_the_grid_and_the_run_do_not_change_a_byte(tmp_path: Path) -> None:
    files = [
        write_store(a_store(tmp_path / f"{core}.zarr", core=core), tmp_path / f"{core}.{run}.tiff", PROVENANCE)
        for core in (512, 1024, 2048)
        for run in (1, 2)
    ]
    assert len({file.read_bytes() for file in files}) == 1


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_tags_say_what_the_streams_are(tmp_path: Path, compression: str) -> None:
    path = write_store(a_store(tmp_path / "s", compression=compression), tmp_path / "a.tiff", PROVENANCE)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_bigtiff
        first: Any = tiff.pages[0]
        assert [page.shape[:2] for page in (first, *first.pages)] == [(900, 1300), (450, 650), (225, 325)]
        for level, page in enumerate((first, *first.pages)):
            assert all(count > 0 for count in page.databytecounts)
            assert page.tags["XResolution"].value[0] / page.tags["XResolution"].value[1] == pytest.approx(
                1e4 / (0.499 * 2**level), rel=1e-6
            )
            assert bool(page.subfiletype & 1) == (level > 0)
            if compression == "jpeg":
                tiff.filehandle.seek(page.dataoffsets[0])
                header = read_jpeg_header(tiff.filehandle.read(page.databytecounts[0]))
                assert (header.height, header.width, header.components) == (512, 512, 3)
                assert header.sampling == tuple(page.subsampling) == (2, 2)
                assert header.ycbcr
                assert page.photometric == tifffile.PHOTOMETRIC.YCBCR
        assert "DateTime" not in first.tags


@pytest.mark.parametrize(("height", "width", "levels"), [(900, 1300, 3), (513, 20, 2), (512, 512, 1), (1, 1, 1)])
def test_levels_are_in_both_chains(tmp_path: Path, height: int, width: int, levels: int) -> None:
    path = write_store(a_store(tmp_path / "s", height, width), tmp_path / "a.tiff", PROVENANCE)
    with path.open("rb") as file:
        chain = read_chain(file)
        sub = read_sub_directories(file, chain[0])
    assert len(chain) == levels
    assert [directory.entries for directory in chain[1:]] == [directory.entries for directory in sub]
    with tifffile.TiffFile(path) as tiff:
        assert len(tiff.series) == 1
        assert len(tiff.series[0].levels) == levels


def test_a_chain_is_extended_once(tmp_path: Path) -> None:
    path = write_store(a_store(tmp_path / "s"), tmp_path / "a.tiff", PROVENANCE)
    with pytest.raises(ValueError, match="3 directories already"):
        link_levels(path)


@pytest.mark.parametrize("damage", ["classic", "cut", "loop"])
def test_a_broken_chain_is_noticed(tmp_path: Path, damage: str) -> None:
    path = write_store(a_store(tmp_path / "s"), tmp_path / "a.tiff", PROVENANCE)
    data = bytearray(path.read_bytes())
    with path.open("rb") as file:
        last = read_chain(file)[-1]
    match damage:
        case "classic":
            data[2] = 42
        case "cut":
            del data[last.offset + 20 :]
        case "loop":
            data[last.next_position : last.next_position + 8] = last.offset.to_bytes(8, "little")
    path.write_bytes(data)
    with path.open("rb") as file, pytest.raises(ValueError, match=r"BigTIFF|ends inside|does not end"):
        read_chain(file)


# The metadata


@pytest.mark.parametrize(
    ("mpp", "magnification"),
    [
        (0.25, 40),
        (0.2265, 40),
        (0.499, 20),
        (0.5, 20),
        (0.46, 20),
        (1.0, 10),
        (2.0, 5),
        (0.325, 31),
        (8.0, 1.25),
        (0.1, 100),
    ],
)
def test_magnification_is_the_objective_that_people_would_name(mpp: float, magnification: float) -> None:
    assert nominal_magnification(mpp) == magnification


def test_the_document_is_valid_and_says_what_qupath_needs() -> None:
    xml = ome_xml(Size(1700, 2500), PROVENANCE)
    ome_types.validate_xml(xml)
    ome = ome_types.from_xml(xml)
    pixels = ome.images[0].pixels
    assert (pixels.size_x, pixels.size_y, pixels.size_c) == (2500, 1700, 3)
    assert (pixels.physical_size_x, pixels.physical_size_y) == (0.499, 0.499)
    assert str(pixels.physical_size_x_unit.value) == "µm"
    assert [objective.nominal_magnification for objective in ome.instruments[0].objectives] == [20]
    assert len(ome.instruments) == 1
    assert ome.images[0].name == "Virtual HER2 IHC"
    assert RESEARCH_USE_ONLY in (ome.images[0].description or "")


@pytest.mark.parametrize("mpp", [0.05, 1 / 3, 0.25251, 8e-4, 19.9999])
def test_the_pixel_size_is_written_to_the_last_digit(mpp: float) -> None:
    xml = ome_xml(Size(10, 10), PROVENANCE.model_copy(update={"mpp": mpp}))
    ome_types.validate_xml(xml)
    pixels = ElementTree.fromstring(xml).find(f".//{OME}Pixels")
    assert pixels is not None
    assert float(pixels.attrib["PhysicalSizeX"]) == pytest.approx(mpp, abs=1e-12)
    assert "e" not in pixels.attrib["PhysicalSizeX"]


def test_provenance_is_inside_with_all_its_names() -> None:
    root = ElementTree.fromstring(ome_xml(Size(1700, 2500), PROVENANCE))
    pairs = {pair.attrib["K"]: pair.text for pair in root.iter(f"{OME}M")}
    assert pairs == PROVENANCE.entries()
    assert pairs["versions.torch"] == "2.13.0"
    assert "statistics_sha256" not in pairs


@pytest.mark.parametrize("name", ["Läufer №5 µm.svs", "染色.svs", "<&\">'.svs", "bad\udcff\x00name.svs"])
def test_any_file_name_survives(tmp_path: Path, name: str) -> None:
    provenance = Provenance(**(PROVENANCE.model_dump() | {"source_name": name}))
    path = write_store(a_store(tmp_path / "s", 100, 100), tmp_path / "a.tiff", provenance)
    with tifffile.TiffFile(path) as tiff:
        xml = tiff.pages[0].tags[270].value  # type: ignore[union-attr]
    ome_types.validate_xml(xml)
    written = [pair.text for pair in ElementTree.fromstring(xml).iter(f"{OME}M") if pair.get("K") == "source_name"]
    assert written == [name.replace("\udcff", "\ufffd").replace("\x00", "\ufffd")]


@pytest.mark.parametrize(
    "path", ["/clinic/Mrs Smith/slide.svs", "C:\\clinic\\Mrs Smith\\slide.svs", "dicom/slide.svs/"]
)
def test_folders_of_the_source_are_not_told(path: str) -> None:
    assert Provenance(**(PROVENANCE.model_dump() | {"source_name": path})).source_name == "slide.svs"


def test_different_outputs_have_different_identities() -> None:
    def identity(provenance: Provenance) -> str:
        return ElementTree.fromstring(ome_xml(Size(10, 10), provenance)).attrib["UUID"]

    assert identity(PROVENANCE) == identity(PROVENANCE.model_copy())
    assert identity(PROVENANCE) != identity(PROVENANCE.model_copy(update={"generator_sha256": "cd34"}))


@pytest.mark.parametrize("name", ["a.ome.tiff", "a.ome.tif", "a.tiff", "a.TIF"])
def test_the_sidecar_lies_beside(name: str) -> None:
    assert sidecar_path(Path("out") / name) == Path("out/a.json")


def test_the_sidecar_holds_the_same_and_the_run(tmp_path: Path) -> None:
    path = write_store(a_store(tmp_path / "s", 100, 100), tmp_path / "a.ome.tiff", PROVENANCE)
    content = json.loads(write_sidecar(path, PROVENANCE, {"seconds": 1.5}).read_text(encoding="utf-8"))
    assert Provenance.model_validate(content["provenance"]) == PROVENANCE
    assert content["run"] == {"seconds": 1.5}
    assert content["file"]["bytes"] == path.stat().st_size


# Never half there


@contextmanager
def _no_file_may_grow_beyond(limit: int) -> Iterator[None]:
    """The system refuses to write more; the nearest to a full disk that a test can have for real."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [0, 1000, 30_000, 60_000, 69_000])
def test_a_disk_that_refuses_leaves_no_file_and_a_store_that_goes_on(tmp_path: Path, limit: int) -> None:
    store, part = a_store(tmp_path / "s"), tmp_path / "a.ome.tiff.part"
    complete_levels(store.files)
    with _no_file_may_grow_beyond(limit), pytest.raises(StorageError) as caught:
        write_store(store, part, PROVENANCE)
    assert "\n" not in str(caught.value)
    assert not part.exists()
    assert write_store(store, part, PROVENANCE).stat().st_size > 69_000


def test_a_disk_that_is_full_at_the_last_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store, part = a_store(tmp_path / "s"), tmp_path / "a.ome.tiff.part"
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        write_store(store, part, PROVENANCE)
    assert not part.exists()


def finish(part: Path, output: Path) -> None:
    check_output(OmeTiff(), part, [STAINED])
    name_output(OmeTiff(), part, output, [STAINED])


def test_the_name_appears_when_the_file_is_sound(tmp_path: Path) -> None:
    output = tmp_path / "a.ome.tiff"
    output.write_bytes(b"an older one")
    part = write_store(a_store(tmp_path / "s"), tmp_path / "a.ome.tiff.part", PROVENANCE)
    finish(part, output)
    assert not part.exists()
    assert output.stat().st_size > 1000


def test_an_unsound_file_never_gets_the_name(tmp_path: Path) -> None:
    part = write_store(a_store(tmp_path / "s"), tmp_path / "a.ome.tiff.part", PROVENANCE)
    part.write_bytes(part.read_bytes()[:-3000])
    with pytest.raises(OutputError, match="failed its verification"):
        finish(part, tmp_path / "a.ome.tiff")
    assert not (tmp_path / "a.ome.tiff").exists()
    assert part.exists()
