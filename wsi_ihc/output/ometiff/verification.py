"""Verifies an output: every level, every tile, scale and provenance, for every reader."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import tifffile

from wsi_ihc import RESEARCH_USE_ONLY
from wsi_ihc.errors import one_line
from wsi_ihc.output.ometiff.bigtiff import read_chain, read_sub_directories
from wsi_ihc.output.ometiff.omexml import OME, provenance_entries
from wsi_ihc.output.ometiff.pixels import pixel_problems
from wsi_ihc.output.ometiff.tiles import TileLevel, index_problems
from wsi_ihc.output.provenance import Provenance, sidecar_path
from wsi_ihc.output.verification_report import Check, VerificationReport, run_check

# A damaged file makes tifffile log a line for every tag; unless the application listens, the report is enough.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_MAX_XML_BYTES = 16 << 20
_MAX_TILE_PX = 8192


def verify_ome_tiff(path: Path | str, *, quick: bool = False, with_sidecar: bool = True) -> VerificationReport:
    """Checks an output, or any OME-TIFF, from its first byte to its last tile.

    ``quick`` decodes a sample of the tiles instead of all, and does not compare the sidecar's sha256. The JSON beside
    the file is compared with it when there is one, ``with_sidecar``. Never raises for a damaged file: the report
    says what is wrong, one line a problem. Memory does not grow with the file, but for the index of its tiles.
    """
    path = Path(path)
    opens = run_check("opens", lambda: _open_problems(path))
    if not opens.ok:
        return VerificationReport(path, (opens,))
    checks = [opens, run_check("levels in the main chain", lambda: _chain_problems(path))]
    with tifffile.TiffFile(path) as tiff, path.open("rb") as file:
        checks += _check_levels(tiff, file.fileno(), quick=quick)
        checks += _check_metadata(tiff)
        sidecar = sidecar_path(path)
        if with_sidecar and sidecar.exists():
            checks.append(run_check("sidecar", lambda: _sidecar_problems(tiff, path, sidecar, quick=quick)))
    return VerificationReport(path, tuple(checks))


def _open_problems(path: Path) -> Iterator[str]:
    try:
        with tifffile.TiffFile(path) as tiff:
            if not len(tiff.pages):
                yield "a TIFF without images"
    except IsADirectoryError:
        yield "a folder; give the file itself"
    except FileNotFoundError:
        yield "no such file; check the path"
    except OSError as error:
        yield f"cannot be read ({error.strerror or error})"
    except tifffile.TiffFileError:
        yield "empty" if path.stat().st_size == 0 else "no TIFF, or its first bytes are damaged"


def _chain_problems(path: Path) -> Iterator[str]:
    """OpenSlide and web viewers see only the main chain, the others only the SubIFDs: both must hold all levels."""
    with path.open("rb") as file:
        chain = read_chain(file)
        levels = read_sub_directories(file, chain[0])
    if len(chain) - 1 != len(levels):
        yield f"{len(chain) - 1} reduced levels there, {len(levels)} in the SubIFDs; some readers will not see them"
    elif [directory.entries for directory in chain[1:]] != [directory.entries for directory in levels]:
        yield "the reduced levels there are not those in the SubIFDs; readers will see different pictures"


def _check_levels(tiff: tifffile.TiffFile, descriptor: int, *, quick: bool) -> list[Check]:
    first = _first_page(tiff)
    pages: list[Any] = []

    def structure() -> Iterable[str]:
        pages.extend([first, *(first.pages or ())])
        return _structure_problems(pages, colour=_layer(tiff) is None)

    checks = [run_check("levels", structure)]
    if checks[0].ok:
        levels = [TileLevel(page, descriptor) for page in pages]
        size = os.fstat(descriptor).st_size
        checks.append(run_check("tiles", lambda: index_problems(levels, size)))
        if checks[-1].ok:
            checks.append(run_check("pixels", lambda: pixel_problems(levels, quick=quick)))
    return checks


def _first_page(tiff: tifffile.TiffFile) -> tifffile.TiffPage:
    """Level 0; tifffile reads the first directory in full."""
    return cast(tifffile.TiffPage, tiff.pages[0])


def _layer(tiff: tifffile.TiffFile) -> str | None:
    """Which measured layer the file holds; None for a stained image, and where the file does not say."""
    try:
        return provenance_entries(ElementTree.fromstring(_description(tiff))).get("layer")
    except (ValueError, LookupError, ElementTree.ParseError):
        return None


def _structure_problems(pages: list[Any], *, colour: bool) -> Iterator[str]:
    samples = 3 if colour else pages[0].samplesperpixel
    for number, page in enumerate(pages):
        if not page.is_tiled or page.tilewidth != page.tilelength or not 16 <= page.tilewidth <= _MAX_TILE_PX:
            yield f"level {number}: not in square tiles"
        elif page.samplesperpixel != samples or page.bitspersample != 8 or page.planarconfig != 1:
            yield f"level {number}: not 8 bit {'RGB' if colour else 'of one number of channels'}, interleaved"
        elif page.tilewidth != pages[0].tilewidth or page.compression != pages[0].compression:
            yield f"level {number}: tiles of another kind than level 0"
        if number:
            finer = pages[number - 1]
            if abs(2 * page.imagewidth - finer.imagewidth) > 1 or abs(2 * page.imagelength - finer.imagelength) > 1:
                yield f"level {number}: {page.imagewidth}x{page.imagelength} px is not half of the level below"
    if max(pages[-1].imagewidth, pages[-1].imagelength) > 2 * _MAX_TILE_PX:
        yield f"the coarsest level has {pages[-1].imagewidth}x{pages[-1].imagelength} px: no overview"


def _check_metadata(tiff: tifffile.TiffFile) -> list[Check]:
    documents: list[ElementTree.Element] = []

    def document() -> Iterable[str]:
        xml = _description(tiff)
        try:
            documents.append(ElementTree.fromstring(xml))
        except (ElementTree.ParseError, LookupError) as error:
            raise ValueError(f"no XML ({error}); no reader can know the pixel size") from None
        return _schema_problems(xml)

    readable = run_check("OME-XML", document)
    if not documents:
        return [readable]
    root = documents[0]
    return [
        readable,
        run_check("pixel size", lambda: _pixel_size_problems(root, tiff)),
        run_check("magnification", lambda: _instrument_problems(root)),
        run_check("provenance", lambda: _provenance_problems(root)),
        run_check("research use only", lambda: _mark_problems(root)),
    ]


def _description(tiff: tifffile.TiffFile) -> bytes:
    tag = _first_page(tiff).tags.get(270)
    if tag is None or tag.count > _MAX_XML_BYTES:
        raise ValueError("absent; no reader can know the pixel size")
    value = tag.value
    data = value if isinstance(value, bytes) else str(value).encode("utf-8")
    if b"<OME" not in data[:4096]:
        raise ValueError("absent, the description is something else; no reader can know the pixel size")
    return data


def _schema_problems(xml: bytes) -> Iterator[str]:
    from lxml import etree

    # ome_types carries the schema, but importing it builds hundreds of classes: a second that every run would pay.
    package = importlib.util.find_spec("ome_types")
    assert package is not None
    assert package.submodule_search_locations is not None
    schema = etree.XMLSchema(etree.parse(Path(package.submodule_search_locations[0]) / "ome-2016-06.xsd"))
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    try:
        schema.assertValid(etree.fromstring(xml, parser))
    except (etree.DocumentInvalid, etree.XMLSyntaxError) as error:
        yield f"not valid against the OME schema ({one_line(error)[:120]})"


def _pixel_size_problems(root: ElementTree.Element, tiff: tifffile.TiffFile) -> Iterator[str]:
    pixels = root.find(f".//{{{OME}}}Pixels")
    if pixels is None:
        yield "no Pixels element"
        return
    sizes = [float(pixels.get(f"PhysicalSize{axis}", "nan")) for axis in "XY"]
    units = [pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "XY"]
    if not all(math.isfinite(size) and 0.01 <= size <= 1000 for size in sizes) or units != ["µm", "µm"]:
        yield f"PhysicalSizeX {sizes[0]} {units[0]}, PhysicalSizeY {sizes[1]} {units[1]}: QuPath shows no scale"
    elif abs(sizes[0] - sizes[1]) > 0.01 * sizes[0]:
        yield f"pixels are not square: {sizes[0]} x {sizes[1]} µm"
    page = _first_page(tiff)
    if (pixels.get("SizeX"), pixels.get("SizeY")) != (str(page.imagewidth), str(page.imagelength)):
        yield f"the XML says {pixels.get('SizeX')}x{pixels.get('SizeY')} px, the image has another size"
    planes = pixels.findall(f"{{{OME}}}TiffData")
    if [(plane.get("IFD"), plane.get("PlaneCount")) for plane in planes] != [("0", "1")]:
        yield "TiffData must name IFD 0 and one plane: else reduced levels count as planes"


def _instrument_problems(root: ElementTree.Element) -> Iterator[str]:
    instruments, objectives = root.findall(f"{{{OME}}}Instrument"), root.findall(f".//{{{OME}}}Objective")
    if len(instruments) != 1 or len(objectives) != 1:
        yield (
            f"{len(instruments)} instruments and {len(objectives)} objectives; "
            "QuPath needs exactly one of each to tell the magnification"
        )
    elif not objectives[0].get("NominalMagnification"):
        yield "the objective has no NominalMagnification"


def _provenance_problems(root: ElementTree.Element) -> Iterator[str]:
    entries = provenance_entries(root)
    if not entries:
        yield "absent; not made by wsi-ihc, or stripped by another program"
        return
    required = [name for name, field in Provenance.model_fields.items() if field.is_required()]
    missing = [name for name in required if name not in entries]
    if missing:
        yield f"incomplete; {', '.join(missing)} not told"


def _mark_problems(root: ElementTree.Element) -> Iterator[str]:
    descriptions = [element.text or "" for element in root.iter(f"{{{OME}}}Description")]
    if not any(RESEARCH_USE_ONLY in text for text in descriptions):
        yield "the description does not say that the image is synthetic and not for diagnosis"


def _sidecar_problems(tiff: tifffile.TiffFile, path: Path, sidecar: Path, *, quick: bool) -> Iterator[str]:
    content = json.loads(sidecar.read_bytes())
    told = Provenance.model_validate(content["provenance"]).entries()
    inside = provenance_entries(ElementTree.fromstring(_description(tiff)))
    for name in sorted(told.keys() | inside.keys()):
        if told.get(name) != inside.get(name):
            yield f"{sidecar.name} says {name} = {told.get(name)}, the image {inside.get(name)}"
    file = content.get("file", {})
    if "bytes" in file and file["bytes"] != path.stat().st_size:
        yield f"{sidecar.name} tells of {file['bytes']} bytes, the image has {path.stat().st_size}"
    elif "sha256" in file and not quick:
        with path.open("rb") as image:
            if hashlib.file_digest(image, "sha256").hexdigest() != file["sha256"]:
                yield f"the sha256 in {sidecar.name} is another: the image was changed after it was written"
