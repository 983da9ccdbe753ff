"""The files around one output: what is being written, what is kept for a restart, and the lock on both."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from wsi_ihc.errors import OutputError, SettingsError, StorageError
from wsi_ihc.machine.atomic import new_descriptor
from wsi_ihc.machine.locks import LockedError, locked
from wsi_ihc.slides.notices import Notice

_NO_LOCK = Notice(
    "lock",
    "this file system has no locks: do not start a second conversion to the same output while this one runs",
    "note",
)
_SUFFIXES = (".ome.tiff", ".ome.tif", ".tiff", ".tif")


@dataclass(frozen=True)
class Workspace:
    """Names derived from the output's own: a folder listing shows what belongs together."""

    output: Path

    @classmethod
    def around(cls, output: Path, source: Path, *, overwrite: bool) -> Workspace:
        """Checks what can be checked before any work.

        Raises:
            SettingsError: the name is not a TIFF's, or is the source itself.
            OutputError: the output exists and ``overwrite`` is not set.
            StorageError: its folder cannot be written.
        """
        if not output.name.lower().endswith(_SUFFIXES):
            raise SettingsError(f"{output}: the output is an OME-TIFF; give it a name that ends in .ome.tiff")
        if output.is_dir():
            raise OutputError(f"{output}: a folder has this name; choose another output name")
        if output.exists() and source.exists() and output.samefile(source):
            raise SettingsError(f"{output}: the output would replace the slide itself; choose another name")
        workspace = cls(output.absolute())
        if output.exists() and not overwrite and not workspace.store.exists():
            raise workspace.occupied()
        if output.parent.exists() and not output.parent.is_dir():
            raise StorageError(f"{output.parent}: a file, not a folder for the output; choose another folder")
        if output.parent.exists() and not os.access(output.parent, os.W_OK | os.X_OK):
            raise StorageError(f"{output.parent}: the output's folder cannot be written; check its permissions")
        return workspace

    def occupied(self) -> OutputError:
        """The error for an output that is there and may not be replaced."""
        return OutputError(f"{self.output}: exists already; give --overwrite to replace it, or another name")

    @property
    def store(self) -> Path:
        """Finished blocks; removed when the output is complete."""
        return self.output.with_name(self.output.name + ".blocks.zarr")

    @property
    def part(self) -> Path:
        """The output while it is written."""
        return self.output.with_name(self.output.name + ".part")

    @contextmanager
    def locked(self) -> Generator[tuple[Notice, ...]]:
        """One run at a time on this output; yields a notice where the file system cannot guarantee that.

        The output's folder is made where it is missing, and removed again when it stays empty.

        Raises:
            OutputError: another run holds it; the message names its process and host.
            StorageError: the folder cannot be made or written.
        """
        path = self.output.with_name(f".{self.output.name}.lock")
        with _folder_for(path):
            try:
                with locked(path) as guaranteed:
                    yield () if guaranteed else (_NO_LOCK,)
            except LockedError as error:
                raise OutputError(
                    f"{self.output}: {error.owner} is writing it; wait for it or choose another name"
                ) from None

    def fresh_part(self) -> Path:
        """An empty file for the output while it is written; whatever had its name is removed, a link not followed.

        Raises:
            StorageError: it cannot be made.
        """
        try:
            self.part.unlink(missing_ok=True)
            os.close(new_descriptor(self.part))
        except OSError as error:
            raise StorageError(f"{self.part}: cannot be written ({error.strerror})") from None
        return self.part

    def discard(self) -> None:
        """Removes the store and a half-written output."""
        shutil.rmtree(self.store, ignore_errors=True)
        self.part.unlink(missing_ok=True)


@contextmanager
def _folder_for(path: Path) -> Generator[None]:
    """Makes the folders above ``path`` that are missing; removes again those that stay empty."""
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{path.parent}: the output's folder cannot be made ({error.strerror})") from None
    try:
        yield
    finally:
        with suppress(OSError):  # the first that is not empty
            for folder in missing:
                folder.rmdir()
