"""What ``auto`` means where the work is done."""

from __future__ import annotations

import pytest
import torch

from tests.conftest import PROCESSORS
from wsi_ihc.config import ComputeSettings
from wsi_ihc.conversion.computation import Computation
from wsi_ihc.errors import DeviceError
from wsi_ihc.generators import device as device_module
from wsi_ihc.generators.processor import Processor


def test_nothing_is_left_to_the_workers() -> None:
    found = Computation("cuda", "float16", "torch", 10**10)
    settled = found.settle(ComputeSettings())
    assert (settled.device, settled.precision, settled.backend) == ("cuda", "float16", "torch")
    assert found.settle(ComputeSettings(device="cuda:1")).device == "cuda:1"
    assert "free_bytes" not in found.recorded  # it is no part of what the pixels depend on


def test_a_gpu_tells_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7, 8))
    threads = torch.get_num_threads()
    assert Computation.here(ComputeSettings(), "folded") == Computation("cuda", "float16", "torch", 7, threads)
    cpu = Computation.here(ComputeSettings(device="cpu", precision="float32"), "folded")
    assert (cpu.device, cpu.precision, cpu.free_bytes) == ("cpu", "float32", None)


def test_what_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module.torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="0 CUDA devices"):
        Computation.here(ComputeSettings(device="cuda"), "folded")


def test_what_auto_means_depends_on_the_processor_and_on_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    auto = ComputeSettings(device="cpu")
    for name, precision, backend in (
        ("AMX", "bfloat16", "openvino"), ("AVX-512 BF16", "bfloat16", "torch"), ("AVX2", "float32", "torch"),
    ):  # fmt: skip
        processor = Processor(PROCESSORS[name], openvino=True)
        monkeypatch.setattr(device_module, "this_processor", lambda found=processor: found)
        assert Computation.here(auto, "folded") == Computation("cpu", precision, backend, None, torch.get_num_threads())
        assert Computation.here(auto, "by_window") == Computation(
            "cpu", precision, "torch", None, torch.get_num_threads()
        )
        exact = auto.model_copy(update={"precision": "float32"})
        assert Computation.here(exact, "folded").backend == "torch"
        with pytest.raises(DeviceError, match="not folded"):
            Computation.here(exact.model_copy(update={"backend": "openvino"}), "by_window")
