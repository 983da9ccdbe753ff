"""The second line of defence: what a user sees when the working process itself is lost."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wsi_ihc.machine.child import SUPERVISED

# The supervisor sets signal handlers of its process, so each test gives it one of its own.
SUPERVISE = """
import sys
from wsi_ihc.cli.supervision import run_supervised
sys.exit(run_supervised(sys.argv[2:], lambda arguments: 99, [sys.executable, "-c", sys.argv[1]]))
"""


def _supervise(child: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SUPERVISE, f"import os, signal, sys, time\n{child}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_crash_is_one_line_and_an_exit_code() -> None:
    result = _supervise("os.kill(os.getpid(), signal.SIGSEGV)")
    assert result.returncode == 70
    assert "SIGSEGV" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_kill_tells_how_to_go_on() -> None:
    result = _supervise("os.kill(os.getpid(), signal.SIGKILL)")
    assert result.returncode == 70
    assert "run the same command again" in result.stderr


def test_an_exit_code_passes_through() -> None:
    assert _supervise("sys.exit(3)").returncode == 3


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
def test_killing_the_parent_ends_the_child(tmp_path: Path) -> None:
    """kill -9 of the command leaves no orphan that goes on writing."""
    marker = tmp_path / "pid"
    child = (
        "import os, time\n"
        "from wsi_ihc.cli.supervision import run_supervised\n"
        f"def run(_): open({str(marker)!r}, 'w').write(str(os.getpid())); time.sleep(60); return 0\n"
        "run_supervised([], run)"
    )
    parent = subprocess.Popen([sys.executable, "-c", SUPERVISE, child])
    deadline = time.monotonic() + 30
    while not marker.exists() or not marker.read_text():
        assert time.monotonic() < deadline, "the child never started"
        time.sleep(0.02)
    pid = int(marker.read_text())
    parent.kill()
    parent.wait()
    while _runs(pid):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.02)


def test_a_child_whose_parent_was_killed_while_it_started_does_nothing() -> None:
    """Else it would work on as an orphan, and whoever takes the slide over would find it locked."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    child = "from wsi_ihc.cli.supervision import run_supervised; import sys; sys.exit(run_supervised([], lambda _: 0))"
    started = {**os.environ, SUPERVISED: str(gone.pid)}
    assert subprocess.run([sys.executable, "-c", child], env=started, timeout=60, check=False).returncode == 137


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
