"""Checks before the first slide: what would fail all night is reported in the evening."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from wsi_ihc.batch.cohort import Entry
from wsi_ihc.batch.prefetch import source_bytes
from wsi_ihc.batch.recipe import make_recipe
from wsi_ihc.batch.records import Records
from wsi_ihc.errors import ClusterError, SettingsError, StorageError

_GROWTH = {"jpeg": 1.0, "deflate": 6.0}
"""Bytes of output for a byte of slide, rather too many than too few: most slides are JPEG at twice the resolution."""
_LISTENS_S = 10.0


def check_folder(folder: Path) -> None:
    """Makes the output folder and the one for records.

    Raises:
        StorageError: it cannot be made or written.
    """
    records = Records(folder)
    if records.folder.is_symlink():
        raise StorageError(f"{records.folder}: a link; records need a folder of their own, remove the link")
    try:
        records.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder}: the output folder cannot be made ({error.strerror})") from None
    for place in (folder, records.folder):
        if not os.access(place, os.W_OK | os.X_OK):
            raise StorageError(f"{place}: the output folder cannot be written; check its permissions")


def missing(entries: Sequence[Entry]) -> list[Entry]:
    """Slides that do not exist. They fail; the others are stained."""
    return [entry for entry in entries if not entry.slide.exists()]


def check_owners(entries: Sequence[Entry], folder: Path) -> None:
    """Checks that no other cohort in the same folder has used an output's name for another slide.

    Raises:
        SettingsError: one has.
    """
    records = Records(folder)
    for entry in entries:
        record = records.read(entry.name)
        if record is None or record.slide == str(entry.slide) or not record.recipe or not Path(record.slide).exists():
            continue
        if record.recipe.get("source") != make_recipe(entry.slide, entry.settings, "")["source"]:
            raise SettingsError(
                f"{entry.output(folder)} was made from {record.slide}, and {entry.slide} would replace it; "
                "choose another folder, or another name in the output column of --csv"
            )


def check_schedulers(entries: Sequence[Entry]) -> None:
    """Raises ClusterError when no dask scheduler answers at an address of the settings."""
    for address in {entry.settings.compute.scheduler for entry in entries}:
        host, _, port = (address or "").rpartition("://")[2].rpartition(":")
        if not port.isdecimal():
            continue  # none, or an address that only dask understands
        try:
            socket.create_connection((host.strip("[]"), int(port)), _LISTENS_S).close()
        except (OSError, OverflowError) as error:
            raise ClusterError(
                f"no dask scheduler answers at {address} ({error}); start it, or correct the address"
            ) from None


def needed_bytes(entries: Sequence[Entry], folder: Path, jobs: int) -> int:
    """Roughly the bytes of the outputs that are not there yet; an output that is being written exists twice."""
    sizes = [
        source_bytes(entry.slide) * _GROWTH[entry.settings.output.compression]
        for entry in entries
        if not entry.output(folder).exists()
    ]
    return int(sum(sizes) + sum(sorted(sizes)[-jobs:]))


def check_space(entries: Sequence[Entry], folder: Path, jobs: int) -> None:
    """Raises StorageError when the disk of ``folder`` cannot hold the outputs that are not there yet."""
    needed = needed_bytes(entries, folder, jobs)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(
            f"{folder}: about {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; make room, "
            "choose another disk, or give --no-space-check if you know better"
        )
