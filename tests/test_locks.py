"""Locks and atomic writes beside planted links, pipes and file systems without locks."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path

import pytest

from wsi_ihc.conversion.workspace import Workspace
from wsi_ihc.errors import OutputError, StorageError
from wsi_ihc.machine.atomic import atomic_file, give_name, write_atomically
from wsi_ihc.machine.locks import LockedError, locked
from wsi_ihc.phantom.writing import draw_phantom
from wsi_ihc.pyramid.geometry import Size


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_text("untouched")
    return path


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_one_owner_at_a_time_and_no_file_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path) as guaranteed:
        assert guaranteed
        with pytest.raises(LockedError, match=f"process {os.getpid()} on"), locked(path):
            pass
    assert not path.exists()


@pytest.mark.usefixtures("no_locks")
class TestWithoutLocks:
    def test_a_living_owner_counts_and_a_dead_one_does_not(self, tmp_path: Path) -> None:
        path = tmp_path / "lock"
        with locked(path) as guaranteed:
            assert not guaranteed
            with pytest.raises(LockedError, match="remove that file"), locked(path):
                pass
        path.write_text(f"process 4194305 on {socket.gethostname()}\n")  # above the largest number of a process
        with locked(path):
            pass

    def test_an_owner_on_another_host_counts(self, tmp_path: Path) -> None:
        (tmp_path / "lock").write_text("process 1 on elsewhere\n")
        with pytest.raises(LockedError, match="elsewhere"), locked(tmp_path / "lock"):
            pass

    def test_the_weaker_promise_is_said(self, tmp_path: Path) -> None:
        workspace = Workspace.around(tmp_path / "out.ome.tiff", tmp_path / "slide.svs", overwrite=False)
        with workspace.locked() as notices:
            assert [(notice.code, notice.level) for notice in notices] == [("lock", "note")]
            with pytest.raises(OutputError, match="is writing it"), workspace.locked():
                pass


@pytest.mark.parametrize("plant", [os.symlink, lambda victim, path: os.mkfifo(path)])
def test_a_planted_lock_is_refused_at_once(plant: object, victim: Path, tmp_path: Path) -> None:
    plant(victim, tmp_path / "lock")  # type: ignore[operator]
    with pytest.raises(StorageError, match="remove it"), locked(tmp_path / "lock"):
        pass
    assert victim.read_text() == "untouched"


@pytest.mark.parametrize("plant", [os.symlink, lambda victim, path: os.mkfifo(path)])
def test_a_planted_name_is_replaced_and_never_written_through(plant: object, victim: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.ome.tiff"
    plant(victim, output)  # type: ignore[operator]
    write_atomically(output, b"whole")
    assert output.is_file()
    assert not output.is_symlink()
    assert output.read_bytes() == b"whole"
    plant(victim, Path(f"{output}.part"))  # type: ignore[operator]
    part = Workspace(output).fresh_part()
    assert part.stat().st_size == 0
    assert not part.is_symlink()
    assert victim.read_text() == "untouched"


def test_a_file_is_complete_or_absent(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_file(tmp_path / "file") as stream:
            stream.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    write_atomically(tmp_path / ("ä" * 127), b"x")
    assert len(list(tmp_path.iterdir())) == 1


class TestGiveName:
    def test_a_file_and_an_empty_folder_give_way(self, tmp_path: Path) -> None:
        (tmp_path / "old").write_text("old")
        (tmp_path / "part").write_text("new")
        give_name(tmp_path / "part", tmp_path / "old")
        assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old", "new")]
        (tmp_path / "empty").mkdir()
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "a").touch()
        give_name(tmp_path / "folder", tmp_path / "empty")
        assert (tmp_path / "empty" / "a").exists()

    def test_a_folder_with_content_gives_way_only_on_request(self, tmp_path: Path) -> None:
        for name in ("part", "full"):
            (tmp_path / name).mkdir()
            (tmp_path / name / name).touch()
        with pytest.raises(StorageError, match="full: cannot be given its name"):
            give_name(tmp_path / "part", tmp_path / "full")
        assert (tmp_path / "full" / "full").exists()
        give_name(tmp_path / "part", tmp_path / "full", replace_folder=True)
        assert [path.name for path in (tmp_path / "full").iterdir()] == ["part"]


def test_a_phantom_is_not_written_through_a_planted_link(victim: Path, tmp_path: Path) -> None:
    (tmp_path / "a.tiff.part").symlink_to(victim)
    draw_phantom(tmp_path / "a.tiff", her2="0", size=Size(64, 64), share=0.1)
    assert victim.read_text() == "untouched"
    assert not (tmp_path / "a.tiff").is_symlink()
