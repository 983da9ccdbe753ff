"""A cohort on a SLURM cluster: workers are queued as jobs, and every slide spreads over all of them.

    pip install 'wsi-ihc[slurm]'
    python pipelines/slurm_cohort.py --workers 8 --queue gpu --gres gpu:1 -- slides/ -o stained/ --generator mymodel

Run it on a login or service node that sees the slides and OUT under the same paths as the workers do. What stands
after ``--`` goes to ``wsi-ihc batch``. Pixels do not travel: workers read the slide and write into OUT themselves.
Workers that the queue takes away are replaced, and the blocks they had finished are kept.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from wsi_ihc.errors import ClusterError


def main() -> int:
    """The exit status of ``wsi-ihc batch``."""
    parser = argparse.ArgumentParser(description="Stain a cohort with workers that SLURM runs.")
    parser.add_argument("--workers", type=int, default=4, help="jobs in the queue, one worker each")
    parser.add_argument("--queue", help="SLURM's partition")
    parser.add_argument("--account", help="who pays")
    parser.add_argument("--cores", type=int, default=4, help="processors of a worker")
    parser.add_argument("--memory", default="16GB", help="of a worker")
    parser.add_argument("--walltime", default="12:00:00")
    parser.add_argument("--gres", help="what a worker gets beside processors, for example gpu:1")
    parser.add_argument("--interface", help="network that workers and this node share, for example ib0")
    parser.add_argument("batch", nargs="+", metavar="-- ARGUMENTS", help="arguments of wsi-ihc batch")
    given = parser.parse_args()
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        print("slurm_cohort: dask-jobqueue is not installed; pip install 'wsi-ihc[slurm]'", file=sys.stderr)
        return 2
    cluster = SLURMCluster(
        queue=given.queue,
        account=given.account,
        cores=given.cores,
        processes=1,  # one process owns the device; its threads read and encode beside it
        memory=given.memory,
        walltime=given.walltime,
        interface=given.interface,
        job_extra_directives=[f"--gres={given.gres}"] if given.gres else [],
    )
    with cluster:
        # A job that ends is queued again, up to this number.
        cluster.adapt(minimum_jobs=given.workers, maximum_jobs=given.workers)
        command = [sys.executable, "-m", "wsi_ihc", "batch", "--scheduler", cluster.scheduler_address, *given.batch]
        while True:
            # The queue may take hours to start the first worker, and may take all of them away again.
            cluster.wait_for_workers(1)
            code = subprocess.run(command, check=False).returncode
            if code != ClusterError.exit_code:
                return code


if __name__ == "__main__":
    raise SystemExit(main())
