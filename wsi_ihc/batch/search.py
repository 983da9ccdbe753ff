"""Searches folders for slides. What could be a slide and is not taken is named with the reason."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from wsi_ihc.batch.formats import (
    could_be_slide,
    is_dicom_name,
    is_nameless_tiff,
    is_slide_name,
    is_whole_slide_dicom,
    why_not_taken,
)
from wsi_ihc.errors import SlideError
from wsi_ihc.output.names import STORE_SUFFIX, OutputName
from wsi_ihc.output.recognition import is_output
from wsi_ihc.slides.dicom_series import series_of
from wsi_ihc.slides.files import slide_files

_APPLE_DOUBLE = "._"
"""macOS leaves a file of this prefix beside each file that it copies; it holds no pixels."""
_PEEK = 10_000
"""Entries that are looked at to see whether a folder that is not searched could hold slides."""


@dataclass(frozen=True, order=True)
class LeftOut:
    """Something that could be a slide and was not taken."""

    name: str
    """Absolute path, or the table and its line."""
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass
class Search:
    """What was found so far. Folders may be searched one after the other; each is searched once."""

    recursive: bool = False
    exclude: Sequence[str] = ()
    """Patterns of names, such as ``*.jpg``, that are passed over without a word."""
    slides: list[Path] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    _searched: dict[tuple[int, int], Path] = field(default_factory=dict)

    def add(self, given: Path) -> None:
        """``given`` itself where it is a slide, else the slides in that folder, in order of name.

        A folder with the DICOM files of one slide is a slide itself. A missing file is taken too, and fails later.
        """
        try:
            mode = given.stat().st_mode
        except (OSError, ValueError):
            mode = stat.S_IFREG
        if stat.S_ISDIR(mode):
            self._folder(given)
        elif stat.S_ISREG(mode):
            self.slides.append(given)
        else:
            self._leave(given, "a pipe or a device, not a file")

    def _leave(self, path: Path, reason: str) -> None:
        self.left_out.append(LeftOut(str(path), reason))

    def _folder(self, folder: Path) -> None:
        try:
            facts = folder.stat()
            names = sorted(os.listdir(folder))
        except OSError as error:
            self._leave(folder, f"cannot be listed ({error.strerror})")
            return
        before = self._searched.setdefault((facts.st_dev, facts.st_ino), folder)
        if before != folder:
            self._leave(folder, f"the same folder as {before.name}, which is searched under that name")
            return
        paths = [folder / name for name in names if not any(fnmatch(name, pattern) for pattern in self.exclude)]
        if is_dicom_folder(folder):
            self._dicom(folder, [path for path in paths if path.is_file() and is_dicom_name(path)])
            paths = [path for path in paths if not path.is_file() or why_not_taken(path.name)]
        parts = set(_parts_of_others(paths))
        loose = [path for path in paths if path not in parts and self._consider(path)]
        self._dicom(None, loose)

    def _consider(self, path: Path) -> bool:
        """Takes the path, leaves it out or passes it over; True for a DICOM file, which needs its neighbours."""
        name = path.name
        if name.startswith(".") or name.endswith(STORE_SUFFIX):
            if is_slide_name(name) and not name.startswith(_APPLE_DOUBLE):
                self._leave(path, "a hidden file; name it itself to stain it")
            return False
        try:
            mode = path.stat().st_mode
        except OSError as error:
            self._unreachable(path, error)
            return False
        if stat.S_ISDIR(mode):
            self._inner_folder(path)
        elif not stat.S_ISREG(mode):
            if could_be_slide(name):
                self._leave(path, "a pipe or a device, not a file")
        elif is_slide_name(name):
            if not is_output(path):
                self.slides.append(path)
        elif is_dicom_name(path):
            return True
        else:
            self._file(path)
        return False

    def _file(self, path: Path) -> None:
        """A file whose suffix is no slide's."""
        if path.name.endswith(".part") and OutputName(path.with_suffix("")).store.exists():
            return  # an output of ours in the making
        reason = why_not_taken(path.name)
        if not reason and is_nameless_tiff(path):
            reason = "a TIFF without a suffix; name the file itself to stain it"
        if not reason and not path.suffix and not os.access(path, os.R_OK):
            reason = "cannot be read; check its permissions"
        if reason:
            self._leave(path, reason)

    def _unreachable(self, path: Path, error: OSError) -> None:
        if not could_be_slide(path.name) and path.suffix:
            return
        dangling = path.is_symlink() and isinstance(error, FileNotFoundError)
        self._leave(path, "a link to a file that is missing" if dangling else f"cannot be reached ({error.strerror})")

    def _inner_folder(self, folder: Path) -> None:
        if reason := why_not_taken(folder.name) if folder.suffix.lower() == ".zarr" else "":
            self._leave(folder, reason)
        elif self.recursive or is_dicom_folder(folder):
            self._folder(folder)
        elif _could_hold_slides(folder):
            self._leave(folder, "a folder that was not searched; --recursive searches it")

    def _dicom(self, folder: Path | None, files: Sequence[Path]) -> None:
        """Takes each series of ``files`` once: as the ``folder`` where it is the only one there."""
        known: set[Path] = set()
        found: list[Path] = []
        for file in files:
            if file in known:
                continue
            if not is_whole_slide_dicom(file):
                if not folder:
                    self._leave(file, "DICOM, but no whole-slide image")
                continue
            known |= _series(file)
            found.append(file)
        self.slides.extend([folder] if folder and len(found) <= 1 else found)


def is_dicom_folder(folder: Path) -> bool:
    """Whether DICOM files lie directly in ``folder``, and no other slides; a DICOMDIR's files often have no suffix."""
    try:
        files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    except OSError:
        return False
    if any(is_slide_name(path.name) for path in files):
        return False
    return any(is_dicom_name(path) for path in files)


def without_repeats(slides: Iterable[Path]) -> list[Path]:
    """``slides`` in their order, each once; a file of a DICOM series counts as the folder or file that came before."""
    found = list(dict.fromkeys(slides))
    loose = [path for path in found if path.is_file() and is_dicom_name(path)]
    if not loose:
        return found
    taken: set[Path] = set()
    kept = []
    for path in sorted(found, key=lambda path: path in loose):
        if path not in taken:
            kept.append(path)
            taken |= _series(path) if path in loose or path.is_dir() else set()
    return [path for path in found if path in kept]


def _series(path: Path) -> set[Path]:
    """Every file of the DICOM slide that ``path`` belongs to."""
    try:
        series = series_of(path)
    except (SlideError, OSError):
        return {path}
    return {path, *series.files, *series.repeated}


def _parts_of_others(paths: Sequence[Path]) -> Iterator[Path]:
    """Files and folders that belong to another slide of the same folder, such as the pictures of a VMS slide."""
    for path in paths:
        suffix = path.suffix.lower()
        if suffix in (".vms", ".vmu") and path.is_file():
            with suppress(OSError):
                yield from (part for part in slide_files(path) if part != path)
        if suffix == ".mrxs":
            yield path.with_suffix("")
        if suffix == ".vsi":
            yield path.with_name(f"_{path.stem}_")


def _could_hold_slides(folder: Path) -> bool:
    """Whether a folder that is not searched has something below it that could be a slide; True also when unsure."""
    seen = 0
    for _, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and not name.endswith(STORE_SUFFIX)]
        visible = [name for name in names if not name.startswith(".")]
        if any(could_be_slide(name) or name.lower().endswith(".dcm") for name in (*visible, *folders)):
            return True
        seen += len(names) + len(folders)
        if seen > _PEEK:
            return True
    return not os.access(folder, os.R_OK | os.X_OK)
