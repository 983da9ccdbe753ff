"""A cohort on a SLURM cluster: workers are queued as jobs, and every slide spreads over all of them.

    pip install 'wsi-ihc[slurm]'
    python pipelines/slurm_cohort.py --workers 8 --queue gpu --gres gpu:1 -- slides/ -o stained/ --generator mymodel

Run it on a login or service node that sees the slides and OUT under the same paths as the workers do. What stands
after ``--`` goes to ``wsi-ihc batch``. Pixels do not travel: workers read the slide and write into OUT themselves.
Workers that the queue takes away are replaced, and the blocks they had finished are kept.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import subprocess
import sys
import threading
from pathlib import Path

try:
    from dask_jobqueue.slurm import SLURMCluster, SLURMJob
except ImportError:
    sys.exit("slurm_cohort: dask-jobqueue is not installed; pip install 'wsi-ihc[slurm]'")

from wsi_ihc.errors import ClusterError, one_line
from wsi_ihc.machine.child import PROGRAM

SECONDS_BETWEEN_TRIES = 20
ENDING = threading.Event()
"""Set when no more workers are wanted."""


class PatientJob(SLURMJob):
    """A job that is queued again and again while SLURM refuses or does not answer.

    Otherwise a controller that restarts at that moment, or a limit on the user's jobs, would cost this worker for good.
    """

    shown = ""
    """The reason that was shown last."""

    async def _submit_job(self, script_filename: str) -> str:
        while True:
            try:
                answer: str = await super()._submit_job(script_filename)  # type: ignore[no-untyped-call]
                return answer
            except (OSError, RuntimeError) as error:
                # All workers share a reason, and it may last a night.
                if (why := reason(str(error))) != PatientJob.shown:
                    PatientJob.shown = why
                    say(f"a worker could not be queued, trying again: {why}")
                for _ in range(SECONDS_BETWEEN_TRIES):
                    if ENDING.is_set():
                        raise
                    await asyncio.sleep(1)


class PatientCluster(SLURMCluster):
    """SLURMCluster of such jobs."""

    job_cls = PatientJob


def main() -> int:
    """The exit status of ``wsi-ihc batch``; 2 when SLURM refuses such workers, 130 when interrupted."""
    given = arguments()
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # dask-jobqueue turns Ctrl-C into an exit with status 0, wherever the program is.
        signal.signal(ending, signal.default_int_handler)
    try:
        cluster = start(given)
    except (RuntimeError, ValueError, OSError) as error:
        say(one_line(error))
        return 2
    with cluster:
        try:
            if refusal := refused(cluster.job_script()):  # type: ignore[no-untyped-call]
                say(f"SLURM does not take such workers: {refusal}")
                return 2
            # A job that ends is queued again, up to this number.
            cluster.adapt(minimum_jobs=given.workers, maximum_jobs=given.workers)
            command = [*PROGRAM, "batch", "--scheduler", cluster.scheduler_address, *given.batch]
            while True:
                # The queue may take hours to start the first worker, and may take all of them away again.
                say("waiting for the first worker; squeue --me shows where it stands")
                cluster.wait_for_workers(1)
                code = run(command)
                if code != ClusterError.exit_code:
                    return code
        except KeyboardInterrupt:
            say("interrupted; the same command continues")
            return 130
        finally:
            ENDING.set()


def start(given: argparse.Namespace) -> PatientCluster:
    """The scheduler, in this process; no worker is queued yet."""
    return PatientCluster(
        queue=given.queue,
        account=given.account,
        cores=given.cores,
        processes=1,  # one process owns the device; its threads read and encode beside it
        memory=given.memory,
        walltime=given.walltime,
        interface=given.interface,
        job_extra_directives=[f"--gres={given.gres}"] if given.gres else [],
        log_directory=str(given.logs),
        scheduler_options={"dashboard": False},
    )


def run(command: list[str]) -> int:
    """The exit status of ``command``. An interrupt is passed on, once, and the end waited for."""
    with subprocess.Popen(command, process_group=0) as batch:
        try:
            return batch.wait()
        except KeyboardInterrupt:
            batch.terminate()
            batch.wait()
            raise


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="Stain a cohort with workers that SLURM runs.")
    parser.add_argument("--workers", type=int, default=4, help="jobs in the queue, one worker each")
    parser.add_argument("--queue", help="SLURM's partition")
    parser.add_argument("--account", help="who pays")
    parser.add_argument("--cores", type=int, default=4, help="processors of a worker")
    parser.add_argument("--memory", default="16GB", help="of a worker")
    parser.add_argument("--walltime", default="12:00:00", help="of a worker; another takes its place")
    parser.add_argument("--gres", help="what a worker gets beside processors, for example gpu:1")
    parser.add_argument("--interface", help="network that workers and this node share, for example ib0")
    parser.add_argument("--logs", type=Path, default=Path("slurm-logs"), help="folder of the workers' logs")
    parser.add_argument("batch", nargs="+", metavar="-- ARGUMENTS", help="arguments of wsi-ihc batch")
    return parser.parse_args()


def refused(script: str) -> str:
    """Why SLURM would refuse this job script now, on one line; empty when it would accept it."""
    try:
        tried = subprocess.run(["sbatch", "--test-only"], input=script, text=True, capture_output=True, check=False)
    except OSError as error:
        return f"sbatch cannot be started ({error.strerror}); run this on a node that can queue jobs"
    return reason(tried.stderr) or "sbatch gives no reason" if tried.returncode else ""


def reason(text: str) -> str:
    """The last line in which sbatch says what is wrong."""
    said = [line.removeprefix("sbatch: error: ") for line in text.splitlines() if line.startswith("sbatch: error:")]
    return said[-1] if said else " ".join(text.split())


def say(line: str) -> None:
    """Prints a line on standard error."""
    print(f"slurm_cohort: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
