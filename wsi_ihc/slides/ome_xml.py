"""The images of a TIFF from its OME-XML: their sizes, pixel sizes, focal planes and the directory of each plane."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.slides.pixel_size import from_text

LONGEST = 16_000_000
"""Most characters of a document: a slide's has some thousand, with every plane of a focal stack some 100,000."""
MOST_PLANES = 200
MOST_STEPS = 5_000
"""Most planes of one image that are read, over all channels and times."""
ASSOCIATED = ("label", "macro", "overview", "thumbnail", "slide preview")
"""Beginnings of the names of images that are not the slide."""
OWN_NAMESPACE = "wsi-ihc.org/provenance/"
"""Beginning of the namespace of the annotation that holds the provenance of every output."""
_KEPT = ("UUID", "TiffData", "Channel", "Pixels")
UM_PER_UNIT = {"m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "Å": 1e-4, "in": 25400.0}


@dataclass(frozen=True)
class OmeImage:
    """One Image of the document."""

    name: str
    size: Size
    mpp: tuple[float, float] | None
    """um/px in x and y."""
    depth: int
    """Number of focal planes: SizeZ."""
    ifds: Mapping[int, int]
    """Directory of the main chain by focal plane, both counted from 0, for the first channel and time."""

    @property
    def is_slide(self) -> bool:
        """Whether the name is not that of a label, macro or thumbnail."""
        return not self.name.strip().lower().startswith(ASSOCIATED)


@dataclass(frozen=True)
class OmeXml:
    """The facts that are kept of a document. Nothing else of it may leave the file."""

    images: tuple[OmeImage, ...]
    objective: str | None
    """NominalMagnification of the first Objective."""
    is_own: bool = False
    """Whether wsi-ihc wrote the document: the image is a virtual stain."""


def parse_ome(xml: str, file_name: str = "") -> OmeXml | None:
    """The facts in ``xml`` from the file ``file_name``; None where it is no XML, or longer than ``LONGEST``.

    Memory bound: the Image elements; all others are dropped as they are parsed.
    """
    if len(xml) > LONGEST:
        return None
    images: list[OmeImage] = []
    objective, own_uuid, depth, is_own = None, None, 0, False
    try:
        for event, element in ElementTree.iterparse(io.BytesIO(xml.encode()), ("start", "end")):
            tag = element.tag.rpartition("}")[2]
            if event == "start":
                depth += 1
                own_uuid = element.get("UUID") if depth == 1 else own_uuid
                continue
            depth -= 1
            if tag == "Objective":
                objective = objective or element.get("NominalMagnification")
            elif tag == "MapAnnotation":
                is_own |= (element.get("Namespace") or "").startswith(OWN_NAMESPACE)
            elif tag == "Image" and len(images) < MOST_PLANES:
                images.append(_image(element, own_uuid, file_name))
            if depth <= 1 or tag not in _KEPT:
                element.clear()
    except (ElementTree.ParseError, ValueError):
        return None
    return OmeXml(tuple(images), objective, is_own)


def _image(element: ElementTree.Element, own_uuid: str | None, file_name: str) -> OmeImage:
    pixels = next((child for child in element if _tag(child) == "Pixels"), ElementTree.Element("Pixels"))
    size = Size(_count(pixels, "SizeY", 0), _count(pixels, "SizeX", 0))
    name = "".join(character if character.isprintable() else " " for character in (element.get("Name") or "")[:80])
    return OmeImage(name, size, _mpp(pixels), _count(pixels, "SizeZ", 1), _ifds(pixels, own_uuid, file_name))


def _mpp(pixels: ElementTree.Element) -> tuple[float, float] | None:
    scales = [UM_PER_UNIT.get(pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "XY"]
    stated = from_text(pixels.get("PhysicalSizeX"), pixels.get("PhysicalSizeY"))
    return (stated[0] * scales[0], stated[1] * scales[1]) if stated and scales[0] and scales[1] else None


def _ifds(pixels: ElementTree.Element, own_uuid: str | None, file_name: str) -> dict[int, int]:
    """Directory by focal plane for the first channel and time, without planes that lie in another file."""
    found: dict[int, int] = {}
    steps = 0
    for data in (child for child in pixels if _tag(child) == "TiffData"):
        if not _is_here(data, own_uuid, file_name):
            continue
        first = _count(data, "IFD", 0)
        planes = _count(data, "PlaneCount", 1 if data.get("IFD") is not None else MOST_PLANES)
        steps += 1 + min(planes, MOST_PLANES)
        if steps > MOST_STEPS:
            break
        for number, place in enumerate(_places(pixels, data, min(planes, MOST_PLANES))):
            if place["C"] == place["T"] == 0:
                found.setdefault(place["Z"], first + number)
    return found


def _places(pixels: ElementTree.Element, data: ElementTree.Element, count: int) -> Iterator[dict[str, int]]:
    """Indices C, Z and T of ``count`` consecutive planes, from the first one that ``data`` names."""
    samples = max((_count(child, "SamplesPerPixel", 1) for child in pixels if _tag(child) == "Channel"), default=1)
    channels = _count(pixels, "SizeC", 1) // max(1, samples)
    sizes = {"Z": _count(pixels, "SizeZ", 1), "T": _count(pixels, "SizeT", 1), "C": channels}
    order = pixels.get("DimensionOrder", "XYCZT")[2:]
    axes = order if sorted(order) == ["C", "T", "Z"] else "CZT"
    fast, middle, _ = (max(1, sizes[axis]) for axis in axes)
    first = [_count(data, f"First{axis}", 0) for axis in axes]
    start = first[0] + fast * (first[1] + middle * first[2])
    for number in range(start, min(start + count, fast * middle * max(1, sizes[axes[2]]))):
        yield dict(zip(axes, (number % fast, number // fast % middle, number // (fast * middle)), strict=True))


def _is_here(data: ElementTree.Element, own_uuid: str | None, file_name: str) -> bool:
    """Whether the planes lie in this file; the UUID identifies a file that was renamed."""
    for uuid in (child for child in data if _tag(child) == "UUID"):
        if uuid.text and own_uuid:
            return uuid.text.strip() == own_uuid
        return not file_name or uuid.get("FileName", file_name) == file_name
    return True


def _tag(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _count(element: ElementTree.Element, name: str, default: int) -> int:
    """The attribute ``name`` as a whole number of at least 0; ``default`` for any other text."""
    text = element.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else default
