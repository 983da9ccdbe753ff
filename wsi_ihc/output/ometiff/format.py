"""OME-TIFF as an output format. Each layer is a file: in one chain, a second image would pass for a level."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from wsi_ihc.config import OutputSettings
from wsi_ihc.errors import StorageError
from wsi_ihc.output.ometiff.opening import open_pyramid, read_provenance
from wsi_ihc.output.ometiff.verification import verify_ome_tiff
from wsi_ihc.output.ometiff.writing import write_ome_tiff
from wsi_ihc.output.provenance import Provenance
from wsi_ihc.output.verification_report import VerificationReport
from wsi_ihc.pyramid.codecs import JpegTiles, TileCodec
from wsi_ihc.pyramid.layers import STAINED, Layer
from wsi_ihc.pyramid.pyramid import TilePyramid

_OF_ONE_LAYER = frozenset({"layer", "compression", "quality"})
_SUFFIX = re.compile(r"(\.ome)?\.tiff?(\.part)?$", re.IGNORECASE)


@dataclass(frozen=True)
class OmeTiff:
    """An `OutputFormat`: the stain in ``case_ihc.ome.tiff``, another layer in ``case_ihc.LAYER.ome.tiff`` beside it."""

    suffixes: tuple[str, ...] = (".ome.tiff", ".ome.tif", ".tiff", ".tif")
    is_folder: bool = False

    def stained(self, settings: OutputSettings) -> Layer:
        return Layer(STAINED, settings.compression, settings.quality)

    def files(self, output: Path, layers: Iterable[str]) -> tuple[Path, ...]:
        return (*(layer_file(output, layer) for layer in layers if layer != STAINED), output)

    def write(self, pyramids: Mapping[str, TilePyramid], part: Path, provenance: Provenance) -> None:
        try:
            for name, pyramid in pyramids.items():
                if name == STAINED:
                    write_ome_tiff(pyramid, part, provenance)
                else:
                    write_ome_tiff(pyramid, layer_file(part, name), _of_layer(provenance, name, pyramid.codec))
        except StorageError:
            for file in self.files(part, pyramids):
                file.unlink(missing_ok=True)
            raise

    def open(self, path: Path) -> Mapping[str, TilePyramid]:
        return {STAINED: open_pyramid(path)} | {name: open_pyramid(file) for name, file in _layers_beside(path)}

    def verify(self, path: Path, *, quick: bool = False, with_sidecar: bool = True) -> VerificationReport:
        return verify_ome_tiff(path, quick=quick, with_sidecar=with_sidecar)


def layer_file(output: Path, layer: str) -> Path:
    """``case_ihc.darkness.ome.tiff`` for the layer ``darkness`` of ``case_ihc.ome.tiff``; the same for a ``.part``."""
    suffix = _SUFFIX.search(output.name)
    end = suffix.start() if suffix else len(output.name)
    return output.with_name(f"{output.name[:end]}.{layer}{output.name[end:]}")


def _of_layer(provenance: Provenance, name: str, codec: TileCodec) -> Provenance:
    """The provenance of the file that holds the layer ``name``."""
    compression, quality = ("jpeg", codec.quality) if isinstance(codec, JpegTiles) else ("deflate", None)
    return provenance.model_copy(update={"layer": name, "compression": compression, "quality": quality})


def _layers_beside(output: Path) -> list[tuple[str, Path]]:
    """Name and file of each further layer of ``output``.

    Names alone may lie. Each file says which layer it is, and was made as the output was: the layer of an older output,
    since replaced, is passed over.
    """
    pattern = layer_file(Path(glob.escape(output.name)), "*").name
    files = sorted(output.parent.glob(pattern))
    made = _shared(read_provenance(output)) if files else {}
    found = []
    for file in files:
        entries = read_provenance(file)
        name = entries.get("layer", "")
        if name and layer_file(output, name) == file and _shared(entries) == made:
            found.append((name, file))
    return found


def _shared(entries: Mapping[str, str]) -> dict[str, str]:
    """The entries that are equal in every file of an output."""
    return {name: value for name, value in entries.items() if name not in _OF_ONE_LAYER}
