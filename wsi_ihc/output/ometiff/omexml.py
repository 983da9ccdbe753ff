"""The OME-XML of an output. Bio-Formats, and so QuPath, reads pixel size, magnification and name from it alone."""

from __future__ import annotations

import math
import uuid
from xml.etree import ElementTree

from wsi_ihc import RESEARCH_USE_ONLY
from wsi_ihc.output.provenance import Provenance
from wsi_ihc.pyramid.geometry import Size

OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
PROVENANCE_NAMESPACE = "wsi-ihc.org/provenance/1"
"""Marks our MapAnnotation among others."""

_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_OBJECTIVES = (1.25, 2.0, 2.5, 4.0, 5.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0)


def nominal_magnification(mpp: float) -> float:
    """The objective that people would name for a pixel of ``mpp`` micrometres: 10 / mpp, as 0.25 is called 40x.

    The nearest that is made, when it is within a quarter; else 10 / mpp to two figures.
    """
    exact = 10 / mpp
    nearest = min(_OBJECTIVES, key=lambda objective: abs(math.log(objective / exact)))
    return nearest if 0.8 <= nearest / exact <= 1.25 else float(f"{exact:.2g}")


def ome_xml(size: Size, provenance: Provenance, *, channels: int = 3) -> bytes:
    """UTF-8 bytes of the document for an image of ``size``, RGB or a measured plane.

    Exactly one Instrument with one Objective: with two, QuPath loses the magnification. TiffData names IFD 0 and one
    plane: otherwise the levels in the main chain would count as planes.
    """
    root = ElementTree.Element(
        "OME",
        {
            "xmlns": OME,
            "xmlns:xsi": _XSI,
            "xsi:schemaLocation": f"{OME} {OME}/ome.xsd",
            "UUID": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, f'{provenance.digest()} {size}')}",
            "Creator": f"wsi-ihc {provenance.versions.get('wsi-ihc', '')}".strip(),
        },
    )
    instrument = _child(root, "Instrument", ID="Instrument:0")
    _child(
        instrument, "Objective", ID="Objective:0", NominalMagnification=_number(nominal_magnification(provenance.mpp))
    )
    title = f"{provenance.layer or 'Virtual'} {provenance.stain}"
    image = _child(root, "Image", ID="Image:0", Name=title)
    _child(image, "Description").text = f"{title} of {provenance.source_name}. {RESEARCH_USE_ONLY}"
    _child(image, "InstrumentRef", ID="Instrument:0")
    _child(image, "ObjectiveSettings", ID="Objective:0")
    _add_pixels(image, size, provenance.mpp, channels)
    _child(image, "AnnotationRef", ID="Annotation:0")
    annotations = _child(root, "StructuredAnnotations")
    annotation = _child(annotations, "MapAnnotation", ID="Annotation:0", Namespace=PROVENANCE_NAMESPACE)
    pairs = _child(annotation, "Value")
    for name, value in provenance.entries().items():
        _child(pairs, "M", K=name).text = value
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document


def provenance_entries(root: ElementTree.Element) -> dict[str, str]:
    """Names and values of our MapAnnotation; empty when there is none."""
    for annotation in root.iter(f"{{{OME}}}MapAnnotation"):
        if annotation.get("Namespace") == PROVENANCE_NAMESPACE:
            return {pair.get("K", ""): pair.text or "" for pair in annotation.iter(f"{{{OME}}}M")}
    return {}


def _add_pixels(image: ElementTree.Element, size: Size, mpp: float, channels: int) -> None:
    pixels = _child(
        image,
        "Pixels",
        ID="Pixels:0",
        DimensionOrder="XYCZT",
        Type="uint8",
        BigEndian="false",
        Interleaved="true",
        SizeX=str(size.width),
        SizeY=str(size.height),
        SizeC=str(channels),
        SizeZ="1",
        SizeT="1",
        PhysicalSizeX=_number(mpp),
        PhysicalSizeXUnit="µm",
        PhysicalSizeY=_number(mpp),
        PhysicalSizeYUnit="µm",
    )
    _child(pixels, "Channel", ID="Channel:0:0", SamplesPerPixel=str(channels))
    _child(pixels, "TiffData", IFD="0", PlaneCount="1")


def _child(parent: ElementTree.Element, tag: str, **attributes: str) -> ElementTree.Element:
    return ElementTree.SubElement(parent, tag, attributes)


def _number(value: float) -> str:
    """The shortest text that reads back as ``value``; never in exponents, which some readers refuse."""
    return f"{value:.12f}".rstrip("0").rstrip(".") if value < 1e-3 else repr(float(value)).removesuffix(".0")
