"""A GPU from end to end: megapixels of tissue a second, the share of time the device is busy, what each stage takes.

    python benchmarks/gpu.py WORKFOLDER [--side 40000] [--norm batch] [--device cuda:0] [--repeats 3]

The slide is made on the spot. Printed in one run, so that a device that drifts drifts for all:

1. the device's own limit: a large half precision matrix product, and copies from pinned memory;
2. the generator alone, windows already in memory, for several sizes of block;
3. plain torch against the fused and recorded path, the same windows;
4. `wsi-ihc convert`, process start to end, its stages, and how busy the device was meanwhile.
"""

from __future__ import annotations

import argparse
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from runs import convert, full_size_generator, machine, median, repeated_slide

from wsi_ihc.config import ConversionSettings, load_settings
from wsi_ihc.conversion.staining import load_stainer
from wsi_ihc.errors import DeviceError
from wsi_ihc.generators import Stainer
from wsi_ihc.generators.core_network import CoreNetwork

_OPERATIONS_PER_PIXEL = 1.51e6
"""Of resnet_9blocks with 64 channels."""


def main() -> None:
    """Prints Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=40_000, help="of the slide, pixels; all of it tissue")
    parser.add_argument("--norm", choices=["batch", "instance"], default="batch")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device here: nothing to measure")
    device = torch.device(arguments.device)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print(f"{torch.cuda.get_device_name(device)}; {machine()}\n")

    product = matrix_product(device)
    print(f"half precision matrix product {product / 1e12:.0f} TFLOP/s, pinned copies {pinned_copies(device):.1f} GB/s")
    print(f"limit of the generator at that rate: {product / _OPERATIONS_PER_PIXEL / 1e6:.0f} Mpx/s, no halo\n")

    bundle = full_size_generator(arguments.folder, "batch")
    settings = load_settings(
        ConversionSettings, overrides={"generator.name": str(bundle), "compute.device": arguments.device}
    )
    stainer = load_stainer(settings, None)
    print("| core px | batch | plain torch Mpx/s | fused and recorded Mpx/s | net of halo |\n|---|---|---|---|---|")
    for core_px, batch in ((1024, 8), (2048, 2), (2048, 4), (4096, 1)):
        print(generator_alone(stainer, core_px, batch))

    source = repeated_slide(arguments.folder, arguments.side)
    options = ("--device", arguments.device, "--tissue", "none", "--generator")
    bundle = full_size_generator(arguments.folder, arguments.norm)
    seconds, accounts, busy = [], [], []
    for _ in range(arguments.repeats):
        with device_load(device.index or 0) as load:
            took, account = convert(source, arguments.folder / "gpu.ome.tiff", *options, str(bundle))
        seconds.append(took)
        accounts.append(account)
        busy.append(load)
    megapixels = accounts[0]["megapixels"]
    staining = median([account["seconds"]["stain"] for account in accounts])
    print(f"\n{megapixels:.0f} Mpx of tissue, {arguments.norm} norm, medians of {arguments.repeats}\n")
    print("| | seconds | Mpx/s |\n|---|---|---|")
    print(f"| process, start to end | {median(seconds):.1f} | {megapixels / median(seconds):.0f} |")
    print(f"| staining stage | {staining:.1f} | {megapixels / staining:.0f} |")
    for stage in accounts[0]["seconds"]:
        print(f"| {stage} | {median([account['seconds'][stage] for account in accounts]):.1f} | |")
    # The middle of a run is staining; start-up and writing are not the device's affair.
    shares = [median(load[len(load) // 4 : -len(load) // 4]) for load in busy if len(load) >= 8]
    print(f"\ndevice busy in the middle half of a run: {median(shares):.0f} %" if shares else "\nno nvidia-smi here")


def matrix_product(device: torch.device, side: int = 8192, times: int = 20) -> float:
    """Operations a second of a large half precision matrix product."""
    a = torch.randn(side, side, device=device, dtype=torch.float16)
    seconds = _seconds(device, lambda: a @ a, times)
    return 2 * side**3 / seconds


def pinned_copies(device: torch.device, size: int = 256 << 20, times: int = 10) -> float:
    """Gigabytes a second from pinned memory to the device."""
    pinned = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    return size / _seconds(device, lambda: pinned.to(device, non_blocking=True), times) / 1e9


def generator_alone(stainer: Stainer, core_px: int, batch: int) -> str:
    """A row: the same windows through plain torch and through the stainer, three threads as in a conversion."""
    window_px = core_px + 2 * stainer.halo_px
    windows = _windows(batch, window_px)
    plain = CoreNetwork(stainer._network, stainer.dtype, stainer.halo_px, whole_halo=True).eval()

    @torch.inference_mode()
    def run_plain() -> object:
        return plain(torch.from_numpy(windows).to(stainer.device)).cpu()

    runs = (run_plain, lambda: stainer(windows, halo_px=stainer.halo_px))
    rates = [batch * _calls_per_second(run) for run in runs]
    plain_rate, fast_rate = (rate * window_px**2 / 1e6 for rate in rates)
    return f"| {core_px} | {batch} | {plain_rate:.0f} | {fast_rate:.0f} | {rates[1] * core_px**2 / 1e6:.0f} |"


def _calls_per_second(run: Callable[[], object], times: int = 24) -> float:
    """By three threads, as in a conversion; not a number where the device's memory does not do."""

    def call(_: int) -> None:
        run()

    try:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(call, range(6)))
            started = time.perf_counter()
            list(pool.map(call, range(times)))
            return times / (time.perf_counter() - started)
    except (torch.cuda.OutOfMemoryError, DeviceError):
        torch.cuda.empty_cache()
        return float("nan")


def _windows(batch: int, side: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)


def _seconds(device: torch.device, work: Callable[[], object], times: int) -> float:
    for _ in range(3):
        work()
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    for _ in range(times):
        work()
    torch.cuda.synchronize(device)
    return (time.perf_counter() - started) / times


@contextmanager
def device_load(index: int) -> Iterator[list[float]]:
    """Samples of the device's utilisation in percent, five a second, as the driver's own tool gives them."""
    samples: list[float] = []
    command = [
        "nvidia-smi",
        f"--id={index}",
        "--query-gpu=utilization.gpu",
        "--format=csv,noheader,nounits",
        "-lms=200",
    ]
    try:
        tool = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    except OSError:
        yield samples
        return
    assert tool.stdout is not None
    lines = tool.stdout

    def gather() -> None:
        samples.extend(float(line) for line in lines if line.strip().isdigit())

    reader = threading.Thread(target=gather)
    reader.start()
    try:
        yield samples
    finally:
        tool.terminate()
        reader.join()


if __name__ == "__main__":
    main()
