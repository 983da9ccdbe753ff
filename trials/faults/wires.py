"""Cables pulled out between machines. Each machine is a network namespace of its own, which takes Linux and root.

A process that is stopped still has its connections, and its kernel answers for it. Behind a dead wire nobody answers:
nothing is refused, nothing is closed, packets are lost. Each trial returns its line of the table.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trials.faults.kills import Ground, Row, row
from trials.faults.processes import Conversion, Host, LocalCluster, Outcome, cluster, convert

_SWITCH = "wsi-ihc-switch"
_SHORT_S, _PATIENCE = 6.0, "8s"


class Wires:
    """Four machines on a switch: of the scheduler, of two workers, and of the person."""

    names = ("scheduler", "worker1", "worker2", "person")

    def __init__(self) -> None:
        self.scheduler, self.worker1, self.worker2, self.person = (
            Host(f"10.77.0.{number}", ("ip", "netns", "exec", f"wsi-ihc-{name}"))
            for number, name in enumerate(self.names, start=1)
        )

    def lay(self) -> None:
        """Makes machines, switch and wires."""
        _ip("netns", "add", _SWITCH)
        _ip("-n", _SWITCH, "link", "add", "switch", "type", "bridge")
        _ip("-n", _SWITCH, "link", "set", "switch", "up")
        for number, name in enumerate(self.names, start=1):
            space = f"wsi-ihc-{name}"
            _ip("netns", "add", space)
            _ip("-n", space, "link", "set", "lo", "up")
            _ip("-n", space, "link", "add", "wire", "type", "veth", "peer", "name", name, "netns", _SWITCH)
            _ip("-n", space, "address", "add", f"10.77.0.{number}/24", "dev", "wire")
            _ip("-n", space, "link", "set", "wire", "up")
            _ip("-n", _SWITCH, "link", "set", name, "master", "switch", "up")

    def clear(self) -> None:
        """Takes everything away that is there."""
        for name in (*(f"wsi-ihc-{name}" for name in self.names), _SWITCH):
            subprocess.run(["ip", "netns", "delete", name], check=False, stderr=subprocess.DEVNULL)

    def pull(self, name: str) -> None:
        """The cable of that machine."""
        _ip("-n", _SWITCH, "link", "set", name, "down")

    def plug(self, name: str) -> None:
        """In again."""
        _ip("-n", _SWITCH, "link", "set", name, "up")


@contextmanager
def wired(ground: Ground, name: str) -> Iterator[tuple[Wires, LocalCluster]]:
    """Machines with a scheduler and two workers, which dask takes for alive for 8 s of silence."""
    wires = Wires()
    wires.clear()
    try:
        wires.lay()
        patience = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": _PATIENCE}
        hosts = (wires.scheduler, wires.worker1, wires.worker2)
        with cluster(ground.folder / name.replace(" ", "-"), nanny=False, hosts=hosts, **patience) as there:
            yield wires, there
    finally:
        wires.clear()


def possible() -> bool:
    """Whether this process may make network namespaces."""
    return os.geteuid() == 0 and subprocess.run(["ip", "netns"], capture_output=True, check=False).returncode == 0


def worker_unplugged(ground: Ground) -> Row:
    """A worker's cable is out until the slide is done, and then in again."""
    output = ground.output("worker unplugged")
    with wired(ground, "worker unplugged") as (wires, there):
        ended, _ = _end_without("worker1", ground, output, wires, there)
        time.sleep(3)
        same = ground.reached(ended, output) and not Path(f"{output}.blocks.zarr").exists()
    return row(
        "cable of a worker pulled in mid-slide, in again when the slide is done", [ended], [], 0, same,
        f"finished by the other in {ended.seconds:.0f} s; dask gave the worker up after {_PATIENCE}",
    )  # fmt: skip


def scheduler_unplugged(ground: Ground) -> Row:
    """The scheduler's cable is out until the run has given up; then it is in again, and there are workers again."""
    output = ground.output("scheduler unplugged")
    with wired(ground, "scheduler unplugged") as (wires, there):
        ended, patience_s = _end_without("scheduler", ground, output, wires, there)
        there.stop_workers()
        for _ in range(2):
            there.start_worker()
        same = ground.reached(convert(ground.slide, output, *_spread(there), host=wires.person), output)
    return row(
        "cable of the scheduler pulled in mid-slide; in again after the run has ended", [ended], [ended.line], 10, same,
        f"after {patience_s:.0f} s; the workers had ended too; with others the same command continued",
    )  # fmt: skip


def short_cuts(ground: Ground) -> Row:
    """Every machine's cable in turn is out for some seconds."""
    ends, same = [], True
    for name in Wires.names:
        output = ground.output(f"short cut {name}")
        with wired(ground, f"short cut {name}") as (wires, there):
            running = _start(ground, output, wires, there)
            wires.pull(name)
            time.sleep(_SHORT_S)
            wires.plug(name)
            ended = running.end()
            same = same and ground.reached(ended, output)
        ends.append(ended)
    took = ", ".join(f"{ended.seconds:.0f}" for ended in ends)
    return row(
        f"cable out for {_SHORT_S:.0f} s in mid-slide: of the scheduler, of each worker, of whoever converts",
        ends, [], 0, same, f"finished in {took} s",
    )  # fmt: skip


def _end_without(name: str, ground: Ground, output: Path, wires: Wires, there: LocalCluster) -> tuple[Outcome, float]:
    """How a conversion ends that loses that machine in mid-slide, and how many seconds later."""
    running = _start(ground, output, wires, there)
    wires.pull(name)
    before = running.seconds_since_start()
    ended = running.end()
    wires.plug(name)
    return ended, ended.seconds - before


def _start(ground: Ground, output: Path, wires: Wires, there: LocalCluster) -> Conversion:
    """On the person's machine, until some blocks are there."""
    running = Conversion.start(ground.slide, output, *_spread(there), host=wires.person)
    running.wait_for_blocks(3)
    return running


def _spread(there: LocalCluster) -> tuple[str, str]:
    return "--set", f"compute.scheduler={there.address}"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
