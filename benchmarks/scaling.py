"""One and two workers measured; 4 to 64 simulated from the stage times that were measured; the next bottleneck named.

    python benchmarks/scaling.py WORKFOLDER [--side 30000] [--repeats 3] [--write]

The simulation is held against the two measurements first. GPUs come in as figures on paper, said so in the table.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import matplotlib
from pages import write_between
from runs import convert, machine, median, repeated_slide
from schedule import Outcome, Site, Stages, simulate

from wsi_ihc.conversion.cluster import cluster_at

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
PLOT = PAGE.with_name("scaling.svg")

_GPU_MPX_S = 190.0
"""Of one H100, net of halo: the middle of 167 to 215 on paper. Never seen."""
_GPU_BLOCK_PX = 2048
_SSD_BYTES_S = 3e9
_NETWORK_BYTES_S = 1.25e9
"""10 Gbit/s."""
_SLIDE_PIXELS = 2e9


def main() -> None:
    """Prints the page's section; ``--write`` puts it into docs/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=30_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"put the section into docs/{PAGE.name}")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    source = repeated_slide(given.folder, given.side)

    measured: dict[int, list[float]] = {1: [], 2: []}
    alone: list[tuple[float, int, Stages]] = []
    for _ in range(given.repeats):
        for workers, seconds in measured.items():
            with dask_cluster(workers) as address:
                output = given.folder / "scaling.ome.tiff"
                whole, account = convert(
                    source,
                    output,
                    "--generator",
                    "identity",
                    "--tissue",
                    "none",
                    "--set",
                    f"compute.scheduler={address}",
                )
            seconds.append(account["seconds"]["stain"])
            if workers == 1:
                # Alone on its core, a worker's stages are not slowed by a neighbour's.
                alone.append((seconds[-1], account["blocks"], stages_of(account, whole, source, output)))
        print(f"one worker {measured[1][-1]:.1f} s, two {measured[2][-1]:.1f} s", file=sys.stderr)
    _, blocks, stages = sorted(alone, key=lambda each: each[0])[len(alone) // 2]
    section = report(stages, blocks, {workers: median(seconds) for workers, seconds in measured.items()})
    print(section)
    if given.write:
        draw(stages, PLOT)
        write_between(PAGE, "scaling", section)


def stages_of(account: dict[str, dict[str, float]], whole_s: float, source: Path, output: Path) -> Stages:
    """Seconds and bytes of a block, from the account of a run by one worker with one thread."""
    seconds, blocks = account["seconds"], float(account["blocks"])  # type: ignore[arg-type]
    return Stages(
        block_megapixels=float(account["megapixels"]) / blocks,  # type: ignore[arg-type]
        read_s=seconds["stain: read"] / blocks,
        device_s=seconds["stain: generator"] / blocks,
        encode_s=seconds["stain: encode"] / blocks,
        read_bytes=source.stat().st_size / blocks,
        write_bytes=output.stat().st_size / blocks,
        open_s=whole_s - seconds["stain"] - seconds["write"],
        finish_s=seconds["write"] / blocks,
        task_blocks=together(sum(seconds[f"stain: {stage}"] for stage in ("read", "generator", "encode")) / blocks),
    )


def together(block_s: float) -> int:
    """Blocks in a task, as ``executors`` chooses them."""
    return max(1, min(16, round(0.25 / block_s)))


def on_gpus(stages: Stages) -> Stages:
    """The same reading and writing, blocks as large as a GPU likes them, and its arithmetic on paper."""
    factor = _GPU_BLOCK_PX**2 / 1e6 / stages.block_megapixels
    device_s = stages.block_megapixels * factor / _GPU_MPX_S
    return replace(
        stages,
        task_blocks=together((stages.read_s + stages.encode_s) * factor + device_s),
        block_megapixels=stages.block_megapixels * factor,
        read_s=stages.read_s * factor,
        device_s=device_s,
        encode_s=stages.encode_s * factor,
        read_bytes=stages.read_bytes * factor,
        write_bytes=stages.write_bytes * factor,
        finish_s=stages.finish_s * factor,
    )


def report(stages: Stages, blocks: int, measured: dict[int, float]) -> str:
    """Markdown."""
    lines = [f"{machine()}; identity, {blocks} blocks, dask workers of one thread each.", ""]
    lines += ["| workers | staining, measured s | simulated s | off by |", "|---|---|---|---|"]
    for workers, seconds in measured.items():
        site = Site(workers, 1.0, 1, _SSD_BYTES_S)
        alone = replace(stages, open_s=0.0, finish_s=0.0)
        expected = simulate(alone, site, slides=1, blocks_per_slide=blocks).seconds
        lines.append(f"| {workers} | {seconds:.1f} | {expected:.1f} | {expected / seconds - 1:+.0%} |")
    lines += [
        "",
        f"Simulated: a cohort of slides with {_SLIDE_PIXELS / 1e9:.0f} Gpx of tissue each. A GPU stains "
        f"{_GPU_MPX_S:.0f} Mpx/s **on paper**; what a block costs to read and to encode, and the start and end of a "
        "slide, are measured here.",
        "",
        "| site | slides at a time | Mpx/s | of the GPUs' own | busy: device, cores, storage, head, scheduler "
        "| next bottleneck "
        "| storage MB/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, site in _PLANS.items():
        found = run(stages, site)
        share = found.rate / (_GPU_MPX_S * site.workers)
        busy = ", ".join(
            f"{100 * found.busy[key]:.0f} %" for key in ("device", "cores", "storage", "head", "scheduler")
        )
        lines.append(
            f"| {name} | {site.slides_at_a_time} | {found.rate:,.0f} | {share:.0%} | {busy} | {found.bottleneck} | "
            f"{found.bytes_s / 1e6:,.0f} |"
        )
    widest, site = list(_PLANS.items())[-1]
    alone = run(stages, site, task_blocks=1)
    lines += [
        "",
        f"With a task for every block the scheduler would be busy for {alone.busy['scheduler']:.0%} of the time at "
        f"{widest}, and hold it at {alone.rate:,.0f} Mpx/s.",
    ]
    return "\n".join(lines)


_PLANS = {
    "1 GPU, 2 cores": Site(1, 2, 4, _SSD_BYTES_S),
    "1 GPU, 8 cores": Site(1, 8, 10, _SSD_BYTES_S),
    "1 GPU, 8 cores, two slides": Site(1, 8, 10, _SSD_BYTES_S, slides_at_a_time=2),
    "8 GPUs, 64 cores, one slide over all": Site(8, 8, 10, _SSD_BYTES_S),
    "8 GPUs, 64 cores, two slides": Site(8, 8, 10, _SSD_BYTES_S, slides_at_a_time=2),
    "8 GPUs, 64 cores, a slide for each": Site(8, 8, 10, _SSD_BYTES_S, slides_at_a_time=8),
    "8 GPUs, 64 cores, two slides for each": Site(8, 8, 10, _SSD_BYTES_S, slides_at_a_time=16, head_cores=16),
    "8 GPUs, 32 cores, two slides for each": Site(8, 4, 6, _SSD_BYTES_S, slides_at_a_time=16, head_cores=16),
    "16 GPUs, 128 cores, two slides for each": Site(16, 8, 10, _SSD_BYTES_S, slides_at_a_time=32, head_cores=32),
    "64 GPUs, 512 cores, two slides": Site(64, 8, 10, 8 * _NETWORK_BYTES_S, slides_at_a_time=2),
    "64 GPUs, 512 cores, 10 Gbit/s": Site(64, 8, 10, _NETWORK_BYTES_S, slides_at_a_time=128, head_cores=128),
    "64 GPUs, 512 cores, 100 Gbit/s": Site(64, 8, 10, 10 * _NETWORK_BYTES_S, slides_at_a_time=128, head_cores=128),
    "64 GPUs, 512 cores, 200 Gbit/s": Site(64, 8, 10, 20 * _NETWORK_BYTES_S, slides_at_a_time=128, head_cores=128),
}


def run(stages: Stages, site: Site, task_blocks: int | None = None) -> Outcome:
    """A cohort through a site with GPUs, long enough that its beginning and its end hardly count."""
    on_gpu = on_gpus(stages)
    on_gpu = replace(on_gpu, task_blocks=task_blocks or on_gpu.task_blocks)
    blocks = round(_SLIDE_PIXELS / 1e6 / on_gpu.block_megapixels)
    return simulate(on_gpu, site, slides=max(32, 6 * site.slides_at_a_time), blocks_per_slide=blocks)


def draw(stages: Stages, path: Path) -> None:
    """Mpx/s over the number of GPUs, for one, two and as many slides at a time as GPUs."""
    matplotlib.use("svg")
    from matplotlib import pyplot

    counts = [1, 2, 4, 8, 16, 64]
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    axes.plot(counts, [_GPU_MPX_S * count for count in counts], "k:", label="the GPUs' own")
    plans: dict[str, Callable[[int], int]] = {
        "one slide over all": lambda count: 1,
        "a slide for each": lambda count: count,
        "two slides for each": lambda count: 2 * count,
    }
    for name, slides_at_a_time in plans.items():
        rates = []
        for count in counts:
            slides = slides_at_a_time(count)
            site = Site(count, 8, 10, 20 * _NETWORK_BYTES_S, slides_at_a_time=slides, head_cores=max(8, slides))
            rates.append(run(stages, site).rate)
        axes.plot(counts, rates, "o-", label=name)
    axes.set(xscale="log", yscale="log", xlabel="GPUs, 8 cores each", ylabel="Mpx of tissue a second (simulated)")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


@contextmanager
def dask_cluster(workers: int) -> Iterator[str]:
    """A scheduler and that many workers of one thread, each a process of its own, on this machine alone."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    # A worker is to stand for one core: the generator's threads and OpenCV's would take the other.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    scheduler = [sys.executable, "-m", "dask", "scheduler", "--host", "127.0.0.1", "--port", str(port)]
    worker = [sys.executable, "-m", "dask", "worker", address, "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1"]
    local = ["--dashboard-address", "127.0.0.1:0"]
    processes = [subprocess.Popen([*scheduler, *local], **quiet)]  # type: ignore[call-overload]
    processes += [subprocess.Popen([*worker, *local], **quiet) for _ in range(workers)]  # type: ignore[call-overload]
    try:
        _wait_for(address, workers)
        yield address
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()


def _wait_for(address: str, workers: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with cluster_at(address) as cluster:
                cluster.client.wait_for_workers(workers, timeout=30)
                return
        except Exception:
            time.sleep(0.5)
    raise SystemExit(f"no {workers} workers came to {address}")


if __name__ == "__main__":
    main()
