"""The second line of defence: what a user sees when the working process itself is lost."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from wsi_ihc.cli import main
from wsi_ihc.cli.supervision import Advice
from wsi_ihc.machine.child import SUPERVISED

SMOKE = Path(__file__).parents[1] / "configs" / "smoke.yaml"

# The supervisor sets signal handlers of its process, so each test gives it one of its own.
SUPERVISE = """
import sys
from wsi_ihc.cli.supervision import run_supervised
sys.exit(run_supervised(sys.argv[2:], lambda arguments: 99, command=[sys.executable, "-c", sys.argv[1]]))
"""

# Commands as they are, in a child whose engine crashes as OpenVINO did: in C code, without an exception.
SUPERVISE_COMMAND = """
import sys
from wsi_ihc import cli
from wsi_ihc.cli.supervision import run_supervised
advice = cli._SUPERVISED[sys.argv[2]]
sys.exit(run_supervised(sys.argv[2:], cli._run, advice, [sys.executable, "-c", sys.argv[1]]))
"""
CRASHING = """
import os, signal, sys
import wsi_ihc.generators.inference as inference, wsi_ihc.training.trainer as trainer
def crash(*arguments): os.kill(os.getpid(), signal.SIGSEGV)
inference._on_processor = trainer.validate = crash
from wsi_ihc.cli import main
main(sys.argv[1:])
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


@pytest.mark.parametrize(("name", "said"), [("SIGTERM", "terminated"), ("SIGHUP", "its terminal was closed")])
def test_a_wish_to_end_is_passed_on_and_said_in_one_line(name: str, said: str) -> None:
    """The parent gets the signal, as from a queue or a closed terminal; the child does the work."""
    result = _supervise(f"os.kill(os.getppid(), signal.{name}); time.sleep(30)")
    assert result.returncode == 128 + getattr(signal, name)
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_exit_code_passes_through() -> None:
    assert _supervise("sys.exit(3)").returncode == 3


@pytest.mark.parametrize("command", ["evaluate", "train"])
def test_the_crash_of_an_engine_is_one_line_of_evaluate_and_of_train(command: str, tmp_path: Path) -> None:
    """Train meets it in its validation; what it had kept before, it goes on from."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for side in ("HE", "IHC"):
        (tmp_path / "data" / side).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "data" / side / "a.png"), pixels)
    small = ["data.crop_px=32", "data.sources.phantom.size_px=64", "data.validation_px=64", "run.validate_every=1"]
    small += ["network.base_channels=4", "network.blocks=1", "discriminator.base_channels=4", "compute.device=cpu"]
    words = {
        "evaluate": ["identity", "--data", str(tmp_path / "data"), "--device", "cpu"],
        "train": [str(SMOKE), *(word for setting in small for word in ("--set", setting))],
    }
    arguments = [command, *words[command], "-o", str(tmp_path / "out"), "-q"]
    started = [sys.executable, "-c", SUPERVISE_COMMAND, CRASHING, *arguments]
    result = subprocess.run(started, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 70, result.stderr
    (line,) = result.stderr.strip().split("\n")
    assert "SIGSEGV" in line
    assert {"evaluate": "--precision", "train": "--resume"}[command] in line


def test_every_command_that_could_crash_has_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def supervised(arguments: list[str], run: object, advice: Advice) -> int:
        seen.append((arguments[0], "--reader" in advice.crashed))
        return 0

    monkeypatch.setattr("wsi_ihc.cli.run_supervised", supervised)
    commands = {"convert": True, "info": True, "tissue": True, "verify": False, "train": False, "evaluate": False}
    for command in commands:
        with pytest.raises(SystemExit):
            main([command])
    assert seen == list(commands.items())


INTERRUPTED = """
import sys, time
from wsi_ihc.cli.supervision import run_supervised
def run(_):
    try:
        print("works", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(0.3)  # as long as saving takes, in which an echo would end it
        print("saved", flush=True)
        return 130
run_supervised([], run)
"""


@pytest.mark.skipif(os.name != "posix", reason="groups of processes are POSIX's")
@pytest.mark.parametrize("group", [False, True])
def test_an_interrupt_counts_once_by_the_terminal_or_by_kill(group: bool) -> None:
    """Ctrl-C reaches both processes, ``kill -INT`` only the one whose number the user knows."""
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, INTERRUPTED],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A script's background ignores Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "works\n"
    (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
    assert process.communicate(timeout=60)[0] == "saved\n"
    assert process.returncode == 130


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


POOL = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from wsi_ihc.machine.child import end_with_parent

if __name__ == "__main__":
    pool = ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=end_with_parent)
    print(*{pool.submit(os.getpid).result() for _ in range(8)}, flush=True)
    time.sleep(60)
"""


def test_the_processes_of_a_pool_end_with_their_parent(tmp_path: Path) -> None:
    """Those that measure images wait for work on a pipe that nobody closes."""
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert workers
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while any(map(_runs, workers)):
        assert time.monotonic() < deadline, "a process outlived its parent"
        time.sleep(0.02)
