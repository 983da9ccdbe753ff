"""The formats that an output can have, chosen by the suffix of its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from wsi_ihc.config import OutputSettings
from wsi_ihc.errors import SettingsError
from wsi_ihc.output.ometiff.format import OmeTiff
from wsi_ihc.output.provenance import Provenance
from wsi_ihc.output.verification_report import VerificationReport
from wsi_ihc.pyramid.layers import Layer
from wsi_ihc.pyramid.pyramid import TilePyramid


class OutputFormat(Protocol):
    """How pyramids lie on the disk. A new format is one package with one such object."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Endings of the names of its outputs, in lower case."""

    @property
    def is_folder(self) -> bool:
        """Whether an output is a folder."""

    def stained(self, settings: OutputSettings) -> Layer:
        """The layer of the stained pixels, encoded as ``settings`` say."""

    def files(self, output: Path, layers: Iterable[str]) -> tuple[Path, ...]:
        """The files, or the folder, that hold these layers of the output; ``output`` itself comes last."""

    def write(self, pyramids: Mapping[str, TilePyramid], part: Path, provenance: Provenance) -> None:
        """Writes the layers as the output ``part``, which gets its name later, and syncs it to the disk.

        Its ``files`` are there, and empty.

        Encoded tiles are copied as they are. The same tiles and provenance give the same bytes.

        Raises:
            StorageError: the disk is full, read-only or gone, or a tile is damaged. What was written is removed.
        """

    def open(self, path: Path) -> Mapping[str, TilePyramid]:
        """The layers of the finished output at ``path`` by name; ``stained`` is always there.

        Raises:
            UnreadableSlideError: missing, damaged, or no output.
            UnsupportedSlideError: its tiles are not encoded as wsi-ihc encodes them.
        """

    def verify(self, path: Path, *, quick: bool = False, with_sidecar: bool = True) -> VerificationReport:
        """Checks one of the ``files`` from its first byte to its last tile, or a sample of its tiles when ``quick``.

        Never raises for a damaged file: the report says what is wrong.
        """


FORMATS: tuple[OutputFormat, ...] = (OmeTiff(),)


def format_of(path: Path) -> OutputFormat:
    """The format that the suffix of ``path`` names.

    Raises:
        SettingsError: no format has this suffix.
    """
    for each in FORMATS:
        if path.name.lower().endswith(each.suffixes):
            return each
    known = " or ".join(each.suffixes[0] for each in FORMATS)
    raise SettingsError(f"{path}: the suffix names no output format; give it a name that ends in {known}")


def open_output(path: Path) -> Mapping[str, TilePyramid]:
    """The layers of a finished output by name; ``stained`` is always there.

    Raises:
        SettingsError: no output has such a suffix.
        UnreadableSlideError: missing, damaged, or no output.
        UnsupportedSlideError: its tiles are not encoded as wsi-ihc encodes them.
    """
    return format_of(path).open(path)
