"""What an output is called, and what lies beside it: the one place that knows these names."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

_OUTPUT_SUFFIX = re.compile(r"(\.ome)?\.tiff?$", re.IGNORECASE)
_SLIDE_SUFFIX = re.compile(
    r"(\.ome)?\.(tiff?|btf|svs|svslide|ndpi|vms|vmu|scn|mrxs|bif|czi|zvi|qptiff|dcm|png|jpe?g|bmp)$", re.IGNORECASE
)

STORE_SUFFIX = ".blocks.zarr"
"""Ends the name of a folder that holds the finished blocks of a run."""

_NAME_MAX = 255
_DERIVED_BYTES = 48
"""Room for what is added to a name: ``.ome.tiff``, ``.blocks.zarr``, and the marks of files that are being written."""
LONGEST_STEM = _NAME_MAX - _DERIVED_BYTES


@dataclass(frozen=True)
class OutputName:
    """The path of an output, ``case.7_ihc.ome.tiff``, and the paths of what belongs to it.

    All of them lie in one folder and begin alike: a listing shows what belongs together.
    """

    path: Path

    @classmethod
    def of_slide(cls, slide: Path, folder: Path) -> OutputName:
        """The name that the output of ``slide`` has unless the user gives it another: an OME-TIFF in ``folder``."""
        return cls(folder / f"{output_stem(slide)}.ome.tiff")

    @property
    def stem(self) -> str:
        """The name without its suffix: ``case.7_ihc``."""
        return without_suffix(self.path.name)

    @property
    def sidecar(self) -> Path:
        """The provenance as JSON: ``case.7_ihc.json``."""
        return self.path.with_name(f"{self.stem}.json")

    @property
    def part(self) -> Path:
        """The output while it is written."""
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def store(self) -> Path:
        """The finished blocks of a run; removed when the output is complete."""
        return self.path.with_name(f"{self.path.name}{STORE_SUFFIX}")

    @property
    def lock(self) -> Path:
        """Held by the run that writes the output."""
        return self.path.with_name(f".{self.path.name}.lock")


def output_stem(slide: Path, longest: int = LONGEST_STEM) -> str:
    """``case.7_ihc`` for the slide ``case.7.svs`` or ``case.7.ome.tiff``, and for the folder ``case.7``.

    Only a suffix that slides are known to have is cut off. A name of more than ``longest`` bytes is cut, and ends in a
    hash of the whole.
    """
    name = f"{slide.name if slide.is_dir() else _SLIDE_SUFFIX.sub('', slide.name)}_ihc"
    if name.startswith("."):
        name = f"_{name}"  # a hidden file that was named itself; its output is meant to be seen
    return name if len(os.fsencode(name)) <= longest else _cut(name, longest)


def longest_stem(folder: Path) -> int:
    """How many bytes the name of an output in ``folder`` may have, without its suffix."""
    there = next((parent for parent in (folder, *folder.absolute().parents) if parent.is_dir()), Path("/"))
    try:
        limit = os.pathconf(there, "PC_NAME_MAX")
    except (OSError, ValueError, AttributeError):
        limit = _NAME_MAX
    return min(limit, _NAME_MAX) - _DERIVED_BYTES


def _cut(name: str, longest: int) -> str:
    whole = os.fsencode(name)
    mark = f"~{hashlib.sha256(whole).hexdigest()[:8]}_ihc"
    kept = whole[: longest - len(mark)].decode("utf-8", "ignore") or "slide"
    return kept + mark


def without_suffix(name: str) -> str:
    """``case.7_ihc`` for the output's name ``case.7_ihc.ome.tiff``."""
    return _OUTPUT_SUFFIX.sub("", name)
