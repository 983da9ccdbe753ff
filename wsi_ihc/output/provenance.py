"""What an output is and what made it; the same words inside the file and in the sidecar beside it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from wsi_ihc import RESEARCH_USE_ONLY
from wsi_ihc.errors import StorageError
from wsi_ihc.machine.atomic import write_atomically
from wsi_ihc.machine.regular_files import read_regular
from wsi_ihc.machine.text import json_text
from wsi_ihc.output.contents import content_bytes, content_sha256
from wsi_ihc.output.names import OutputName

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Provenance(BaseModel):
    """Source, generator, settings and versions behind an output.

    Only what decides the pixels: the grid of blocks, timings and paths are left out, so that equal work gives equal
    bytes. Of the source only what is named here is told, never its label, patient, user or date.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    source_name: str
    """File name without its folder."""
    source_width: int = Field(gt=0)
    """Pixels of level 0, inside the scan bounds."""
    source_height: int = Field(gt=0)
    source_mpp: float | None = None
    """Micrometres per pixel of level 0, as the file or the user states it."""
    source_vendor: str | None = None
    source_objective: float | None = None
    source_quickhash: str | None = None
    """OpenSlide's fingerprint of the source."""
    reader: str
    level: int = Field(ge=0)
    """Level of the source that was read."""
    scale: float = Field(gt=0)
    """Level 0 pixels of the source per pixel of this image."""
    offset_x: float = 0.0
    """Level 0 position of this image's top left corner."""
    offset_y: float = 0.0
    mpp: float = Field(gt=0, lt=1000)
    """Micrometres per pixel of this image."""
    stain: str = "HER2 IHC"
    layer: str | None = None
    """Which measured layer this file holds; None for the stained image itself."""
    generator: str
    generator_sha256: str | None = None
    normalisation: str
    """``running``, ``calibrated`` or ``tile``."""
    statistics_sha256: str | None = None
    """Of the calibrated statistics."""
    tissue_source: str
    tissue_fraction: float = Field(ge=0, le=1)
    glass: str = "#ffffff"
    """What is not tissue has this colour: red, green and blue as in CSS."""
    halo_px: int = Field(ge=0)
    device: str
    """Class of device, not its number: ``cpu`` or ``cuda``."""
    precision: str
    backend: str = "torch"
    """Library that ran the generator: ``torch`` or ``openvino``."""
    compression: Literal["jpeg", "deflate"]
    quality: int | None = None
    """Of the JPEG."""
    icc_profile: str = "none"
    """The H&E scanner's profile does not describe a virtual stain."""
    versions: dict[str, str] = {}
    """wsi-ihc, torch and what else decides the pixels."""
    notices: dict[str, str] = {}
    """What a user should know about this image: text by code, such as ``stain`` or ``pixel-size``."""
    notice: str = RESEARCH_USE_ONLY

    @field_validator("*", mode="before")
    @classmethod
    def _printable(cls, value: Any) -> Any:
        """File names may hold bytes that neither XML nor UTF-8 can."""
        return _NOT_XML.sub("\ufffd", value) if isinstance(value, str) else value

    @field_validator("source_name")
    @classmethod
    def _no_folder(cls, value: str) -> str:
        return value.replace("\\", "/").rstrip("/").rpartition("/")[2]

    def entries(self) -> dict[str, str]:
        """Ordered names and values as they stand in the OME-XML; what is None is left out."""
        found: dict[str, str] = {}
        for name, value in self.model_dump(exclude_none=True).items():
            if isinstance(value, dict):
                found |= {f"{name}.{key}": str(text) for key, text in sorted(value.items())}
            else:
                found[name] = str(value)
        return found

    def digest(self) -> str:
        """Of all entries; two outputs with the same digest and pixels are the same file."""
        return hashlib.sha256(json.dumps(self.entries()).encode()).hexdigest()


def sidecar_path(output: Path) -> Path:
    """``slide_ihc.json`` for ``slide_ihc.ome.tiff``."""
    return OutputName(output).sidecar


def read_sidecar(output: Path) -> dict[str, Any]:
    """The JSON beside ``output``; empty when it is absent or damaged."""
    try:
        content = json.loads(read_regular(sidecar_path(output)))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def write_sidecar(file: Path, provenance: Provenance, run: Mapping[str, Any], *, output: Path | None = None) -> Path:
    """Writes ``OUT.json`` beside the ``output`` that the finished ``file`` is or will be.

    It holds the provenance, the file's sha256 and size, and what changes from run to run (``run``: timings, peak
    memory, host).

    Raises:
        StorageError: it cannot be written.
    """
    output = output or file
    path = sidecar_path(output)
    try:
        content = {
            "provenance": provenance.model_dump(mode="json", exclude_none=True),
            "file": {"name": output.name, "bytes": content_bytes(file), "sha256": content_sha256(file)},
            "run": dict(run),
        }
    except OSError as error:
        raise StorageError(f"{path}: the sidecar cannot be written ({error.strerror})") from None
    write_atomically(path, (json_text(content) + "\n").encode())
    return path
