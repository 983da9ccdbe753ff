"""The files around one output: what is being written, what is kept for a restart, and the lock on both."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from wsi_ihc.errors import OutputError, SettingsError, StorageError
from wsi_ihc.machine.atomic import new_descriptor, remove
from wsi_ihc.machine.locks import LockedError, locked
from wsi_ihc.output.formats import OutputFormat, format_of
from wsi_ihc.output.names import OutputName
from wsi_ihc.pyramid.layers import STAINED
from wsi_ihc.slides.notices import Notice

_NO_LOCK = Notice(
    "lock",
    "this file system has no locks: do not start a second conversion to the same output while this one runs",
    "note",
)


@dataclass(frozen=True)
class Workspace:
    """The files of one ``output`` with these ``layers``; its suffix says which format they have."""

    output: Path
    layers: tuple[str, ...] = (STAINED,)

    @classmethod
    def around(cls, output: Path, source: Path, layers: Iterable[str] = (STAINED,), *, overwrite: bool) -> Workspace:
        """Checks what can be checked before any work.

        Raises:
            SettingsError: no format has such a name, or it is the name of the slide itself.
            OutputError: the output exists and ``overwrite`` is not set.
            StorageError: its folder cannot be written.
        """
        workspace = cls(output.absolute(), tuple(layers))
        for file in workspace.form.files(output, workspace.layers):
            is_folder = file.is_dir()
            if file.exists() and source.exists() and file.samefile(source):
                raise SettingsError(f"{file}: the output would replace the slide itself; choose another name")
            if file.exists() and is_folder != workspace.form.is_folder:
                kind = "folder" if is_folder else "file"
                raise OutputError(f"{file}: a {kind} has this name; choose another output name")
            if file.exists() and not overwrite and not workspace.name.store.exists():
                raise occupied(file)
        if output.parent.exists() and not output.parent.is_dir():
            raise StorageError(f"{output.parent}: a file, not a folder for the output; choose another folder")
        if output.parent.exists() and not os.access(output.parent, os.W_OK | os.X_OK):
            raise StorageError(f"{output.parent}: the output's folder cannot be written; check its permissions")
        return workspace

    @property
    def form(self) -> OutputFormat:
        """The format that the output's suffix names."""
        return format_of(self.output)

    @property
    def name(self) -> OutputName:
        """Names of what lies beside the output."""
        return OutputName(self.output)

    @contextmanager
    def locked(self) -> Generator[tuple[Notice, ...]]:
        """One run at a time on this output; yields a notice where the file system cannot guarantee that.

        The output's folder is made where it is missing, and removed again when it stays empty.

        Raises:
            OutputError: another run holds it; the message names its process and host.
            StorageError: the folder cannot be made or written.
        """
        with _folder_for(self.name.lock):
            try:
                with locked(self.name.lock) as guaranteed:
                    yield () if guaranteed else (_NO_LOCK,)
            except LockedError as error:
                raise OutputError(
                    f"{self.output}: {error.owner} is writing it; wait for it or choose another name"
                ) from None

    def fresh_part(self) -> Path:
        """The output while it is written, its files empty; whatever had their names is removed, a link not followed.

        Raises:
            StorageError: it cannot be made.
        """
        for file in self._parts():
            try:
                self._clear(file)
                if self.form.is_folder:
                    file.mkdir()
                else:
                    os.close(new_descriptor(file))
            except OSError as error:
                raise StorageError(f"{file}: cannot be written ({error.strerror})") from None
        return self.name.part

    def discard(self) -> None:
        """Removes the store and a half-written output."""
        shutil.rmtree(self.name.store, ignore_errors=True)
        for file in self._parts():
            self._clear(file)

    def _parts(self) -> tuple[Path, ...]:
        return self.form.files(self.name.part, self.layers)

    def _clear(self, file: Path) -> None:
        """Removes what a run has left; a folder only where the format makes folders."""
        if self.form.is_folder:
            remove(file)
        else:
            file.unlink(missing_ok=True)


def occupied(output: Path) -> OutputError:
    """The error for an output that is there and may not be replaced."""
    return OutputError(f"{output}: exists already; give --overwrite to replace it, or another name")


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
