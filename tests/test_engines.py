"""What runs a generator: every engine gives the pixels that torch gives in float32, within its number format."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, Literal, cast, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.conftest import PROCESSORS
from tests.network_shapes import every_shape
from wsi_ihc.errors import DeviceError
from wsi_ihc.generators import Architecture, Stainer, build_network, fix_normalisation, initialise, load_generator
from wsi_ihc.generators import cuda_engine as cuda_module
from wsi_ihc.generators import openvino_engine as openvino_module
from wsi_ihc.generators.core_network import CoreNetwork
from wsi_ihc.generators.cuda_engine import CudaEngine
from wsi_ihc.generators.device import Graph, choose_backend
from wsi_ihc.generators.fusion import fuse_rectifiers
from wsi_ihc.generators.processor import Processor

CPU = torch.device("cpu")


def pixels(count: int, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def lively_network(
    kind: str = "resnet",
    norm: str = "instance",
    mode: Literal["calibrated", "tile"] = "calibrated",
    **shape: Any,
) -> nn.Module:
    """With contrast in its output, so that a fault would be seen."""
    architecture = Architecture(kind=kind, blocks=2, downs=3, base_channels=8, norm=norm, **shape)
    network = initialise(build_network(architecture), seed=4)
    for parameter in network.parameters():
        parameter.data.mul_(4)
    return fix_normalisation(network, mode, [pixels(2, 32, 32)])[0]


def openvino_can(dtype: torch.dtype) -> bool:
    try:
        capabilities = openvino_module._import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        openvino_module.require_arithmetic(dtype, capabilities)
    except DeviceError:
        return False
    return True


@pytest.mark.skipif(not openvino_module.openvino_is_installed(), reason="OpenVINO is not installed")
class TestOpenVino:
    @every_shape
    def test_float32_differs_by_one_level_at_most(self, shape: dict[str, Any]) -> None:
        network = lively_network(**shape)
        torch_stainer, openvino_stainer = (
            Stainer(network, device="cpu", precision="float32", backend=name) for name in ("torch", "openvino")
        )
        halo = torch_stainer.halo_px
        windows = pixels(2, 2 * halo + 32, 2 * halo + 48)
        expected, stained = torch_stainer(windows, halo_px=halo), openvino_stainer(windows, halo_px=halo)
        assert expected.std() > 10
        assert stained.shape == expected.shape == (2, 32, 48, 3)
        assert np.abs(stained.astype(int) - expected).max() <= 1

    def test_every_shape_is_compiled_and_none_disturbs_another(self) -> None:
        stainer = Stainer(lively_network(), device="cpu", precision="float32", backend="openvino")
        first, second = pixels(1, 32, 48), pixels(3, 40, 32)
        expected = stainer(first)
        stainer(second)
        np.testing.assert_array_equal(stainer(first), expected)
        assert not np.array_equal(stainer(pixels(1, 32, 48, seed=1)), expected)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("mode", ["calibrated", "tile"])
    def test_every_arithmetic_is_done_or_refused(self, dtype: torch.dtype, mode: Literal["calibrated", "tile"]) -> None:
        """None is taken for another, and none crashes."""
        network, windows = lively_network(mode=mode), pixels(1, 64, 64)
        exact = Stainer(network, device="cpu", precision="float32", backend="torch")(windows)
        precision = str(dtype).removeprefix("torch.")
        if not openvino_can(dtype) or (dtype, mode) == (torch.float32, "tile"):
            with pytest.raises(DeviceError, match="--backend torch"):
                Stainer(network, device="cpu", precision=precision, backend="openvino")(windows)
            return
        stained = Stainer(network, device="cpu", precision=precision, backend="openvino")(windows)
        apart = np.abs(exact.astype(int) - stained)
        assert apart.max() <= 1 if dtype == torch.float32 else 0 < apart.mean() < 3

    def test_nobody_is_told_of_its_use(self) -> None:
        openvino_module._import_openvino()
        from openvino.tools.ovc import telemetry_utils

        assert telemetry_utils.tm.__name__.endswith("telemetry_stub")


@pytest.mark.parametrize("capabilities", [["FP32", "INT8"], ["FP32", "BF16", "INT8"], ["FP32", "BF16", "FP16", "INT8"]])
def test_arithmetic_that_the_processor_lacks_is_refused(capabilities: list[str]) -> None:
    openvino_module.require_arithmetic(torch.float32, capabilities)
    for name, dtype in (("BF16", torch.bfloat16), ("FP16", torch.float16)):
        if name in capabilities:
            openvino_module.require_arithmetic(dtype, capabilities)
        else:
            with pytest.raises(DeviceError, match=r"precision b?float16.*--backend torch"):
                openvino_module.require_arithmetic(dtype, capabilities)


class TestChoice:
    @pytest.mark.parametrize("name", PROCESSORS)
    @pytest.mark.parametrize("openvino", [True, False])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("graph", get_args(Graph))
    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    def test_auto_takes_openvino_where_it_is_faster(
        self, name: str, openvino: bool, dtype: torch.dtype, graph: Graph, device: str
    ) -> None:
        chosen = choose_backend("auto", torch.device(device), dtype, graph, Processor(PROCESSORS[name], openvino))
        faster = (name, openvino, graph, device) == ("AMX", True, "folded", "cpu") and dtype != torch.float32
        assert chosen == ("openvino" if faster else "torch")

    def test_amx_without_float16_does_not_multiply_it(self) -> None:
        processor = Processor(frozenset({"amx_bf16"}), openvino=True)
        assert choose_backend("auto", CPU, torch.float16, "folded", processor) == "torch"
        assert choose_backend("auto", CPU, torch.bfloat16, "folded", processor) == "openvino"

    @pytest.mark.parametrize("name", PROCESSORS)
    def test_what_crashes_openvino_is_refused_on_every_processor(self, name: str) -> None:
        processor = Processor(PROCESSORS[name], openvino=True)
        with pytest.raises(DeviceError, match=r"norm layers that are not folded; use --backend torch") as caught:
            choose_backend("openvino", CPU, torch.float32, "by_window", processor)
        assert "\n" not in str(caught.value)
        for dtype, graph in ((torch.bfloat16, "by_window"), (torch.float16, "by_window"), (torch.float32, "folded")):
            assert choose_backend("openvino", CPU, dtype, cast(Graph, graph), processor) == "openvino"

    @pytest.mark.parametrize("norm", ["batch", "instance"])
    def test_a_stainer_knows_what_crashes_openvino(self, norm: str) -> None:
        network = lively_network(norm=norm, mode="tile")
        with pytest.raises(DeviceError, match="not folded"):
            Stainer(network, device="cpu", precision="float32", backend="openvino")
        assert Stainer(network, device="cpu", precision="float32").backend == "torch"

    def test_what_cannot_be_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(DeviceError, match="not on cuda; use --device cpu"):
            choose_backend("openvino", torch.device("cuda"), torch.float32, "folded")
        with pytest.raises(DeviceError, match="backend tensorrt: expected auto"):
            choose_backend("tensorrt", CPU, torch.float32, "folded")
        monkeypatch.setitem(__import__("sys").modules, "openvino", None)
        with pytest.raises(DeviceError, match=r"pip install 'wsi-ihc\[openvino\]'"):
            openvino_module._import_openvino()

    def test_built_ins_need_no_other_library(self) -> None:
        assert Stainer(load_generator("recolour").build(), device="cpu", backend="openvino").backend == "torch"


def rectified(x: Tensor, weight: Tensor, bias: Tensor, *geometry: Any) -> Tensor:
    """What cuDNN's fused kernel computes, for a processor."""
    return torch.relu(torch.nn.functional.conv2d(x, weight, bias, *geometry))


@pytest.fixture
def cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "cudnn_convolution_relu", rectified)


@pytest.mark.usefixtures("cudnn")
@pytest.mark.parametrize("kind", ["resnet", "unet"])
def test_fused_rectifiers_change_nothing(kind: str) -> None:
    network = lively_network(kind)
    x = torch.rand(1, 3, 32, 32)
    fused = fuse_rectifiers(network)
    torch.testing.assert_close(fused(x), network(x))
    rectifiers = [sum(isinstance(layer, nn.ReLU) for layer in each.modules()) for each in (network, fused)]
    assert rectifiers[1] < rectifiers[0] or kind == "unet"  # whose rectifiers follow concatenations
    assert {id(weight) for weight in fused.parameters()} == {id(weight) for weight in network.parameters()}


class _Stream:
    def __init__(self, device: torch.device) -> None:
        self.device = device

    def record_event(self) -> object:
        return object()

    def wait_event(self, event: object) -> None: ...

    def synchronize(self) -> None: ...


class _Graph:
    """Counts its replays; what was recorded stays what it was."""

    replays = 0

    def replay(self) -> None:
        type(self).replays += 1


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, cudnn: None) -> type[_Graph]:
    """A processor that answers as a GPU: what is tested is the order of work, not the device."""

    @contextmanager
    def recording(graph: _Graph, *, stream: _Stream, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        yield

    fake = SimpleNamespace(
        Stream=_Stream,
        CUDAGraph=_Graph,
        graph=recording,
        stream=lambda stream: nullcontext(),
        device=lambda device: nullcontext(),
        is_available=lambda: False,
        OutOfMemoryError=torch.cuda.OutOfMemoryError,
    )
    monkeypatch.setattr(torch, "cuda", fake)
    monkeypatch.setattr(Tensor, "record_stream", lambda tensor, stream: None)
    _Graph.replays = 0
    return _Graph


def core_network(network: nn.Module | None = None) -> CoreNetwork:
    return CoreNetwork(network or lively_network(), torch.float32, 0, whole_halo=False)


def test_a_gpu_gives_what_the_processor_gives(gpu: type[_Graph]) -> None:
    core = core_network()
    engine = CudaEngine(core, CPU)
    batches = [pixels(2, 32, 32, seed) for seed in range(3)] + [pixels(1, 32, 32, 3)]
    for windows in batches[:1] + batches[3:]:
        np.testing.assert_array_equal(engine(windows), core(torch.from_numpy(windows)).numpy())
    assert gpu.replays == 0  # nothing is recorded for a shape that may never come again
    engine(batches[0])
    engine(batches[0])
    assert gpu.replays == 2


def test_what_a_thread_is_given_stays_its_own(gpu: type[_Graph]) -> None:
    engine = CudaEngine(core_network(), CPU)
    engine._may_record = False
    batches = [pixels(1, 32, 32, seed) for seed in range(8)]
    expected = [core_network()(torch.from_numpy(windows)).numpy() for windows in batches]
    with ThreadPoolExecutor(3) as pool:
        assert all(map(np.array_equal, pool.map(engine, batches), expected))


@pytest.mark.parametrize(
    ("fused", "said"),
    [
        (lambda *arguments: 1 - rectified(*arguments), "off by"),
        (lambda *arguments: (_ for _ in ()).throw(RuntimeError("CUDNN_STATUS_NOT_SUPPORTED\nmore")), "NOT_SUPPORTED"),
    ],
)
def test_a_fast_path_that_is_wrong_or_missing_is_left(
    gpu: type[_Graph], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fused: Any, said: str
) -> None:
    monkeypatch.setattr(torch, "cudnn_convolution_relu", fused)
    core, windows = core_network(), pixels(1, 32, 32)
    engine = CudaEngine(core, CPU)
    for _ in range(2):
        np.testing.assert_array_equal(engine(windows), core(torch.from_numpy(windows)).numpy())
    (record,) = caplog.records
    assert said in record.getMessage()
    assert "\n" not in record.getMessage()


def test_a_driver_that_records_nothing_only_costs_speed(
    gpu: type[_Graph], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuses() -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(cuda_module.torch.cuda, "CUDAGraph", refuses)
    core, windows = core_network(), pixels(1, 32, 32)
    engine = CudaEngine(core, CPU)
    for _ in range(4):
        np.testing.assert_array_equal(engine(windows), core(torch.from_numpy(windows)).numpy())
    assert len(caplog.records) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", ["resnet", "unet"])
def test_a_real_gpu_agrees_with_the_processor(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    network = lively_network(kind)
    exact, fast = Stainer(network, device="cpu", precision="float32"), Stainer(network, device="cuda")
    batches = [pixels(2, 2 * exact.halo_px + 64, 2 * exact.halo_px + 64, seed) for seed in range(9)]
    expected = [exact(windows, halo_px=exact.halo_px).astype(int) for windows in batches]
    with ThreadPoolExecutor(3) as pool:
        stained = list(pool.map(lambda windows: fast(windows, halo_px=exact.halo_px), batches))
    assert all(np.abs(found - wanted).max() <= 3 for found, wanted in zip(stained, expected, strict=True))
    assert not caplog.records
