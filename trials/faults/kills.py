"""Kills at random moments: of a conversion, of a dask worker, of the dask scheduler; each time it goes on."""

from __future__ import annotations

import random
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from trials.faults.processes import Conversion, LocalCluster, Outcome, cluster, send, without_paths


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    fault: str
    times: int
    happened: str
    same: bool
    """The output has the undisturbed run's bytes, and whatever else was promised held."""


@dataclass(frozen=True)
class Ground:
    """What every trial stands on."""

    folder: Path
    slide: Path
    truth: bytes
    """Of the undisturbed run's output."""
    seconds: float
    """It took so long."""
    chance: random.Random

    def output(self, name: str) -> Path:
        """A place for a trial's output; what an earlier run of the trial left there is removed."""
        output = self.folder / f"{name}.ome.tiff"
        output.unlink(missing_ok=True)
        return output

    def reached(self, ended: Outcome, output: Path) -> bool:
        """Whether the run went well and its output has the bytes of the undisturbed one."""
        return ended.code == 0 and output.read_bytes() == self.truth

    def moment(self, running: Conversion) -> bool:
        """Waits for a random moment of a conversion's life; False when it has ended before."""
        if self.chance.random() < 0.5:
            return running.wait_for_blocks(running.blocks() + self.chance.randint(1, 30))
        return running.wait_seconds(self.chance.uniform(0, 1.1 * self.seconds))


def row(fault: str, ended: list[Outcome], lines: list[str], code: int, same: bool, then: str) -> Row:
    """Each run must end with ``code`` and say one line when that is an error."""
    codes = sorted({run.code for run in ended})
    as_told = all(run.code in (code, 0) for run in ended) and code in codes
    as_told &= all(len(run.said) == 1 for run in ended if run.code)
    said = "; ".join(f"`{line}`" for line in dict.fromkeys(without_paths(line) for line in lines if line))
    happened = f"exit status {', '.join(map(str, codes))}" + (f": {said}" if said else "")
    return Row(fault, len(ended), happened + (f"; {then}" if then else ""), same and as_told)


def named(output: Path) -> bool:
    """Whether the output is there and tidied up after."""
    return output.exists() and not output.with_name(output.name + ".blocks.zarr").exists()


def kill_conversions(ground: Ground, kills: int) -> Row:
    """kill -9 of parent and child, of the parent alone, or of the child alone; the same command until it is done."""
    whom, runs, same = Counter[str](), 0, True
    while sum(whom.values()) < kills:
        output = ground.output(f"process{runs}")
        # A kill may come when the file has its name already; the same command would then refuse to replace it.
        while not named(output):
            running = Conversion.start(ground.slide, output)
            target = ground.chance.choice(("both", "parent", "child"))
            before = running.blocks()
            if sum(whom.values()) < kills and ground.moment(running):
                running.kill(target)
                whom[target] += 1
            ended = running.end()
            expected = (0, 70) if target == "child" else (0, -signal.SIGKILL)
            same &= ended.code in expected and (running.blocks() >= before or output.exists())
        runs += 1
        same &= output.read_bytes() == ground.truth
        output.unlink()
    return Row(
        "kill -9 of a conversion at a random moment "
        f"(both processes {whom['both']}, the parent {whom['parent']}, the child {whom['child']})",
        sum(whom.values()),
        f"{runs} slides; no finished block was lost; a parent whose child is killed exits with 70 and says that the "
        "same command continues",
        same,
    )


def kill_workers(ground: Ground, kills: int) -> Row:
    """kill -9 of one of two workers while a slide is in the making; its nanny starts another."""
    done, runs, same, line = 0, 0, True, ""
    with cluster(ground.folder / "killed-workers") as workers:
        while done < kills:
            output = ground.output(f"worker{runs}")
            running = Conversion.start(ground.slide, output, "--set", f"compute.scheduler={workers.address}")
            for _ in range(ground.chance.randint(1, 4)):
                if done < kills and ground.moment(running) and _kill_one(ground, workers):
                    done += 1
            ended = running.end()
            line = line or ended.line
            same &= ground.reached(ended, output)
            output.unlink(missing_ok=True)
            runs += 1
    happened = f"{runs} slides, each finished by the run that was disturbed; exit status 0"
    return Row(
        "kill -9 of one of two dask workers in mid-slide", done, happened + (f"; said: {line}" if line else ""), same
    )


def _kill_one(ground: Ground, workers: LocalCluster) -> bool:
    chosen = ground.chance.randrange(len(workers.workers))
    pid = workers.worker_process(chosen)
    if pid is None:
        return False
    send(pid, signal.SIGKILL)
    return True


def kill_schedulers(ground: Ground, kills: int) -> Row:
    """kill -9 of the scheduler while a slide is in the making; scheduler and workers are started again."""
    done, runs, same, slowest = 0, 0, True, 0.0
    lines: Counter[str] = Counter()
    with cluster(ground.folder / "killed-schedulers", nanny=False) as there:
        while done < kills:
            output = ground.output(f"scheduler{runs}")
            while not named(output):
                running = Conversion.start(ground.slide, output, "--set", f"compute.scheduler={there.address}")
                killed = False
                if done < kills and running.wait_for_blocks(1):
                    killed = ground.moment(running)
                if killed:
                    there.kill_scheduler()
                    moment = running.seconds_since_start()
                    done += 1
                ended = running.end()
                if killed and ended.code:
                    slowest = max(slowest, ended.seconds - moment)
                    lines[without_paths(ended.line)] += 1
                same &= ended.code in ((0, 10) if killed else (0,)) and len(ended.said) == (1 if ended.code else 0)
                if killed:
                    there.stop_workers()
                    there.start_scheduler()
                    there.start_worker()
                    there.start_worker()
            runs += 1
            same &= output.read_bytes() == ground.truth
            output.unlink()
    told = "; ".join(f"`{line}` ({count})" for line, count in lines.most_common())
    return Row(
        "kill -9 of the dask scheduler in mid-slide; scheduler and workers started again",
        done,
        f"{runs} slides; exit status 10 at most {slowest:.0f} s later: {told}; the same command continued",
        same,
    )
