"""The processes that the fault trials disturb: conversions, and a dask cluster on this machine."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

LIMIT_S = 120.0
"""Longer than any trial takes: what does not end by then hangs."""
CORE_PX = 512


@dataclass(frozen=True)
class Host:
    """A machine: its address, and the words before a command that is to run on it."""

    address: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()


HERE = Host()


@dataclass(frozen=True)
class Outcome:
    """How a conversion ended: its exit status, and what it said on standard error, a line each."""

    code: int
    said: tuple[str, ...]
    seconds: float

    @property
    def line(self) -> str:
        """The last of its own lines."""
        own = [line.removeprefix("wsi-ihc: ") for line in self.said if line.startswith("wsi-ihc: ")]
        return own[-1] if own else ""


@dataclass
class Conversion:
    """``wsi-ihc convert`` while it runs; ``output`` is what it makes."""

    process: subprocess.Popen[str]
    output: Path
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def start(
        cls,
        slide: Path,
        output: Path,
        *options: str,
        quiet: bool = True,
        environment: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
        host: Host = HERE,
    ) -> Conversion:
        """Small blocks, so that there are many moments between them. ``before`` is called in the new process."""
        command = [*host.prefix, sys.executable, "-P", "-m", "wsi_ihc", "convert", str(slide), "-o", str(output)]
        command += ["--generator", "identity", "--set", f"tiling.core_px={CORE_PX}", *options]
        process = subprocess.Popen(
            [*command, "--quiet"] if quiet else command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
            preexec_fn=before,
        )
        return cls(process, output)

    @property
    def store(self) -> Path:
        return self.output.with_name(self.output.name + ".blocks.zarr")

    def blocks(self) -> int:
        """How many are finished."""
        return blocks_of(self.output)

    def running(self) -> bool:
        return self.process.poll() is None

    def wait_for_blocks(self, count: int) -> bool:
        """Until so many blocks are there; False when it has ended before."""
        return wait_until(lambda: self.blocks() >= count or not self.running()) and self.running()

    def wait_seconds(self, seconds: float) -> bool:
        """Until so long after its start; False when it has ended before."""
        until = self.started + seconds
        return wait_until(lambda: time.monotonic() >= until or not self.running()) and self.running()

    def seconds_since_start(self) -> float:
        return time.monotonic() - self.started

    def signal(self, number: signal.Signals) -> None:
        """To parent and child."""
        for pid in (*processes_under(self.process.pid), self.process.pid):
            send(pid, number)

    def kill(self, whom: str = "both") -> None:
        """SIGKILL to the ``parent``, which supervises, to the ``child``, which works, or to ``both`` at once."""
        children = processes_under(self.process.pid)
        if whom in ("child", "both"):
            for child in children:
                send(child, signal.SIGKILL)
        if whom in ("parent", "both"):
            self.process.kill()

    def end(self) -> Outcome:
        """Waits for it.

        Raises:
            TimeoutError: it hangs.
        """
        try:
            _, said = self.process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise TimeoutError(f"{self.output.name}: hangs") from None
        lines = tuple(line for line in said.splitlines() if line.strip())
        return Outcome(self.process.returncode, lines, time.monotonic() - self.started)


def convert(slide: Path, output: Path, *options: str, quiet: bool = True, host: Host = HERE) -> Outcome:
    """Undisturbed, from start to end."""
    return Conversion.start(slide, output, *options, quiet=quiet, host=host).end()


def blocks_of(output: Path) -> int:
    """How many blocks of ``output`` are finished."""
    try:
        return sum(name[0].isdigit() for name in os.listdir(f"{output}.blocks.zarr/blocks"))
    except OSError:
        return 0


@dataclass
class LocalCluster:
    """``dask scheduler`` and ``dask worker``, each a process of its own."""

    folder: Path
    nanny: bool = True
    """Each worker has a nanny, which starts it anew when it is killed."""
    environment: Mapping[str, str] = field(default_factory=dict)
    hosts: Sequence[Host] = (HERE,)
    """The scheduler runs on the first, workers on the others in turn; all on the only one."""
    address: str = ""
    scheduler: subprocess.Popen[bytes] | None = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_scheduler(self) -> None:
        """On a free port, and at every later call on the same one."""
        port = self.address.rpartition(":")[2] or str(random.SystemRandom().randint(20000, 29999))
        host = self.hosts[0]
        self.address = f"tcp://{host.address}:{port}"
        log = self.folder / "scheduler.log"
        self.scheduler = self._start(host, log, "scheduler", "--port", port)
        assert wait_until(lambda: "Scheduler at" in log.read_text()), log.read_text()

    def start_worker(self) -> None:
        """One thread; returns when the scheduler knows it."""
        log = self.folder / f"worker{len(self.workers)}.log"
        nanny = "--nanny" if self.nanny else "--no-nanny"
        hosts = self.hosts[1:] or self.hosts
        host = hosts[len(self.workers) % len(hosts)]
        options = ["--nthreads", "1", nanny, "--local-directory", str(self.folder)]
        self.workers.append(self._start(host, log, "worker", self.address, *options))
        assert wait_until(lambda: "Registered to" in log.read_text()), log.read_text()

    def worker_process(self, index: int) -> int | None:
        """The process that works: the nanny's child, or the worker itself; None while it is being started anew."""
        process = self.workers[index]
        if not self.nanny:
            return process.pid
        # The nanny's other child is multiprocessing's resource tracker.
        works = [pid for pid in processes_under(process.pid, deep=False) if "resource_tracker" not in _command(pid)]
        return works[0] if works else None

    def kill_scheduler(self) -> None:
        assert self.scheduler
        self.scheduler.kill()
        self.scheduler.wait()

    def stop_workers(self) -> None:
        for process in self.workers:
            for pid in (*processes_under(process.pid), process.pid):
                send(pid, signal.SIGKILL)
            process.wait()
        self.workers.clear()

    def _start(self, host: Host, log: Path, *words: str) -> subprocess.Popen[bytes]:
        reached = ["--host", host.address, "--dashboard-address", "127.0.0.1:0"]
        with log.open("wb") as stream:
            return subprocess.Popen(
                [*host.prefix, sys.executable, "-P", "-m", "dask", *words, *reached],
                stdout=stream,
                stderr=stream,
                env={**os.environ, "DASK_DISTRIBUTED__WORKER__DAEMON": "False", **self.environment},
                start_new_session=True,
            )


@contextmanager
def cluster(
    folder: Path, *, workers: int = 2, nanny: bool = True, hosts: Sequence[Host] = (HERE,), **environment: str
) -> Iterator[LocalCluster]:
    """A scheduler and some workers; ``environment`` is theirs."""
    folder.mkdir(parents=True, exist_ok=True)
    made = LocalCluster(folder, nanny, environment, hosts)
    try:
        made.start_scheduler()
        for _ in range(workers):
            made.start_worker()
        yield made
    finally:
        made.stop_workers()
        if made.scheduler:
            made.kill_scheduler()


def processes_under(pid: int, *, deep: bool = True) -> list[int]:
    """Children, and theirs."""
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=deep)]
    except psutil.NoSuchProcess:
        return []


def send(pid: int, number: signal.Signals) -> None:
    """A signal to a process that may just have ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def wait_until(condition: Callable[[], bool], seconds: float = LIMIT_S) -> bool:
    """Looks often; False when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def without_paths(line: str) -> str:
    """The line as it may stand in a page: no folders, ports, processes or names of this machine."""
    line = re.sub(r"(\d+\.\d+\.\d+\.\d+):\d+", r"\1:8786", line)
    line = re.sub(r"block \d+, \d+", "block 3, 4", line)
    line = re.sub(r"process \d+ on \S+", "process 4711 on somehost", line)
    return re.sub(r"(?<!/)/(?!/)(?:[^\s/]+/)*([^\s/]+)", r"\1", line)


def _command(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""
