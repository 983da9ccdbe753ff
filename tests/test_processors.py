"""What this process may use of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsi_ihc.machine import processors as module
from wsi_ihc.machine.processors import cores, processors


def test_cores_are_at_most_the_processors() -> None:
    assert 1 <= cores() <= processors()


def test_two_threads_of_one_core_are_one_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    monkeypatch.setattr(module, "_TOPOLOGY", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3, 7})
    assert cores() == 3  # two cores of two threads, and one that says nothing
