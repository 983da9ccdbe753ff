"""``wsi-ihc doctor``: checks whether this machine can run everything."""

from __future__ import annotations

import importlib.metadata
import json
import multiprocessing
import os
import platform
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import click

_LIBRARIES = [
    "torch",
    "openslide-python",
    "openslide-bin",
    "tiffslide",
    "tifffile",
    "imagecodecs",
    "zarr",
    "distributed",
    "numpy",
    "opencv-python-headless",
    "wsidicom",
]

Finding = tuple[bool, str]
"""Whether the check passed, and what it saw."""
Check = Callable[[], Finding]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(as_json: bool) -> None:
    """Check this machine: versions, device, codecs, readers and disk. Exit code 1 when something is missing."""
    findings: dict[str, Finding] = {}
    for name, (ok, seen) in examine_all(_CHECKS):
        findings[name] = ok, seen
        if not as_json:
            click.echo(f"{click.style('ok ', fg='green') if ok else click.style('BAD', fg='red')}  {name:<12} {seen}")
    if as_json:
        click.echo(json.dumps({name: {"ok": ok, "seen": seen} for name, (ok, seen) in findings.items()}, indent=2))
    if not all(ok for ok, _ in findings.values()):
        raise SystemExit(1)


def examine_all(checks: Mapping[str, Check]) -> Iterator[tuple[str, Finding]]:
    """Yields each finding with its name, as soon as it is known.

    The checks run in a child process. A check that crashes is a finding too, and the next checks go on.
    """
    waiting = dict(checks)
    while waiting:
        for name, finding in _examined_until_a_crash(waiting.copy()):
            del waiting[name]
            yield name, finding


def _examined_until_a_crash(checks: Mapping[str, Check]) -> Iterator[tuple[str, Finding]]:
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads can hang
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_report, args=(checks, sender), daemon=True)
    child.start()
    sender.close()  # the child now holds the only sending end: its death ends the receiving
    names = iter(checks)
    with receiver, suppress(EOFError):
        while True:
            finding: Finding = receiver.recv()
            yield next(names), finding
    child.join()
    if crashed := next(names, None):
        yield crashed, (False, _crash(crashed, child.exitcode))


def _report(checks: Mapping[str, Check], sender: Connection) -> None:
    for check in checks.values():
        sender.send(_examine(check))


def _crash(name: str, code: int | None) -> str:
    ending = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
    return f"crashed ({ending}): {_AFTER_A_CRASH.get(name, 'install the library again, or another version of it')}"


def _examine(check: Check) -> Finding:
    try:
        return check()
    except Exception as error:  # something is broken on this machine: that is the finding
        return False, f"{type(error).__name__}: {error}"


def _system() -> Finding:
    return True, f"wsi-ihc {_version('wsi-ihc')}, Python {platform.python_version()}, {platform.platform(terse=True)}"


def _libraries() -> Finding:
    versions = {name: _version(name) for name in _LIBRARIES}
    return all(versions.values()), ", ".join(f"{name} {version or 'MISSING'}" for name, version in versions.items())


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> Finding:
    import psutil
    import torch

    from wsi_ihc.generators.processor import this_processor

    memory = psutil.virtual_memory()
    flags = [flag for flag in ("amx_bf16", "amx_fp16", "avx512_bf16", "avx2") if flag in this_processor().features]
    seen = ", ".join([f"{os.cpu_count()} cores", f"torch uses {torch.get_num_threads()}", *flags])
    return True, f"{seen}; memory {memory.available / 2**30:.1f} GiB free of {memory.total / 2**30:.1f}"


def _device() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return True, "no CUDA device; the generator runs on the processor"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return True, ", ".join(f"cuda:{index} {name}" for index, name in enumerate(names))


def _engine() -> Finding:
    from wsi_ihc.generators.trial import try_engine

    try_engine("tile", precision="float32")
    stainer = try_engine()
    made = stainer.describe()
    return True, f"{made['backend']} in {made['precision']} on the {stainer.device.type}, tried"


def _openvino() -> Finding:
    from wsi_ihc.generators.processor import this_processor
    from wsi_ihc.generators.trial import try_engine

    if not this_processor().openvino:
        return True, "not installed; torch runs every generator"
    try_engine(precision="float32", backend="openvino")
    return True, f"{_version('openvino')}, tried"


def _codecs() -> Finding:
    import imagecodecs
    import numpy as np

    ramp = np.linspace(0, 255, 64 * 64 * 3).astype(np.uint8).reshape(64, 64, 3)
    trips = {
        "JPEG": lambda: imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode(ramp, level=85)),
        "JPEG 2000": lambda: imagecodecs.jpeg2k_decode(imagecodecs.jpeg2k_encode(ramp, level=0)),
        "deflate": lambda: imagecodecs.zlib_decode(imagecodecs.zlib_encode(ramp.tobytes())),
        "LZW": lambda: imagecodecs.lzw_decode(imagecodecs.lzw_encode(ramp.tobytes())),
    }
    broken = [name for name, trip in trips.items() if not _runs(trip)]
    return not broken, f"missing: {', '.join(broken)}" if broken else ", ".join(trips)


def _runs(action: Callable[[], object]) -> bool:
    try:
        action()
    except Exception:
        return False
    return True


def _readers() -> Finding:
    import openslide

    return True, f"OpenSlide {openslide.__library_version__}, tiffslide {_version('tiffslide')}, direct tile decoding"


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    writable = os.access(Path.cwd(), os.W_OK)
    return writable and free > 1, f"{free:.0f} GiB free here{'' if writable else ', but this folder is not writable'}"


_AFTER_A_CRASH = {
    "engine": "convert with --backend torch or --precision float32",
    "openvino": "use --backend torch, or remove openvino from this environment",
}
_CHECKS: dict[str, Check] = {
    "system": _system,
    "libraries": _libraries,
    "processor": _processor,
    "device": _device,
    "engine": _engine,
    "openvino": _openvino,
    "codecs": _codecs,
    "readers": _readers,
    "disk": _disk,
}
