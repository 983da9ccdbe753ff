"""The Stainer: pixels in, pixels out, on a device that may be missing or too small."""

from __future__ import annotations

import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.conftest import PROCESSORS
from tests.network_shapes import SHAPES, every_shape
from wsi_ihc.errors import DeviceError
from wsi_ihc.generators import (
    Architecture,
    Stainer,
    build_network,
    fix_normalisation,
    initialise,
    keep_memory_flat,
    load_generator,
    tune_allocator,
)
from wsi_ihc.generators.builtin import Recolour
from wsi_ihc.generators.device import choose_dtype
from wsi_ihc.generators.pixels import to_pixels, to_tensor
from wsi_ihc.generators.processor import Processor

on_every_processor = pytest.mark.usefixtures("every_processor")


def pixels(count: int, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def small_network(kind: str = "resnet", **shape: Any) -> nn.Module:
    """With enough contrast in its output that a fault would be seen."""
    architecture = Architecture(kind=kind, blocks=2, downs=3, base_channels=4, norm="instance", **shape)
    network = initialise(build_network(architecture), seed=4)
    for parameter in network.parameters():
        parameter.data.mul_(5)
    return fix_normalisation(network, "calibrated", [pixels(2, 32, 32)])[0]


def test_every_level_survives_the_conversion() -> None:
    levels = torch.arange(256, dtype=torch.uint8).expand(3, 256).t().reshape(1, 16, 16, 3)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert torch.equal(to_pixels(to_tensor(levels, dtype)), levels)


def test_pixels_are_rounded_and_clipped() -> None:
    values = torch.tensor([-1.5, -1 + 0.4 / 127.5, -1 + 0.6 / 127.5, 1.5]).view(1, 1, 2, 2).expand(1, 3, 2, 2)
    assert to_pixels(values)[0, ..., 0].flatten().tolist() == [0, 0, 1, 255]


@given(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20), st.integers(0, 4))
def test_identity_is_exact(count: int, height: int, width: int, halo: int) -> None:
    stainer = Stainer(load_generator("identity").build(), device="cpu")
    windows = pixels(count, height + 2 * halo, width + 2 * halo)
    stained = stainer(windows, halo_px=halo)
    assert np.array_equal(stained, windows[:, halo : halo + height, halo : halo + width])
    assert stained.flags.c_contiguous
    assert not np.shares_memory(stained, windows)
    assert (stainer.halo_px, stainer.align_px) == (0, 1)


@every_shape
def test_stains_what_the_network_gives(shape: dict[str, Any]) -> None:
    network = small_network(**shape)
    windows = pixels(2, 32, 48)
    stained = Stainer(network, device="cpu", precision="float32")(windows)
    expected = to_pixels(network(to_tensor(torch.from_numpy(windows)))).numpy()
    assert stained.dtype == np.uint8
    assert np.abs(stained.astype(int) - expected).max() <= 1
    assert stained.std() > 10


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(list(SHAPES.values())), st.integers(0, 2), st.integers(1, 4), st.integers(1, 4))
def test_cutting_the_halo_early_changes_no_pixel_of_the_core(
    shape: dict[str, Any], extra: int, rows: int, columns: int
) -> None:
    """The resnet does not even compute the margin then."""
    stainer = Stainer(small_network(**shape), device="cpu", precision="float32")
    halo = stainer.halo_px + extra * stainer.align_px
    windows = pixels(2, 2 * halo + rows * stainer.align_px, 2 * halo + columns * stainer.align_px)
    core = stainer(windows, halo_px=halo)
    whole = stainer(windows)[:, halo:-halo, halo:-halo]
    assert core.shape == whole.shape
    assert np.abs(core.astype(int) - whole).max() <= 1


@on_every_processor
def test_half_of_a_halo_still_crops() -> None:
    stainer = Stainer(small_network(), device="cpu", precision="float32")
    windows = pixels(1, 64, 64)
    assert np.array_equal(stainer(windows, halo_px=8), stainer(windows)[:, 8:-8, 8:-8])


@on_every_processor
def test_bfloat16_stays_close() -> None:
    network = small_network()
    windows = pixels(1, 64, 64)
    exact, coarse = (Stainer(network, device="cpu", precision=name)(windows) for name in ("float32", "bfloat16"))
    assert np.abs(exact.astype(int) - coarse).mean() < 3
    assert not np.array_equal(exact, coarse)


@on_every_processor
@pytest.mark.parametrize(
    "windows", [pixels(1, 30, 32), pixels(1, 32, 32).astype(np.float32), pixels(1, 32, 32)[0], pixels(0, 32, 32)]
)
def test_other_shapes_are_refused(windows: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=r"multiples of 4|expected \(n, height"):
        Stainer(small_network(), device="cpu")(windows)


@on_every_processor
def test_a_halo_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves nothing"):
        Stainer(small_network(), device="cpu")(pixels(1, 32, 32), halo_px=16)


class _Hungry(nn.Module):
    """Runs out of memory above a batch size; keeps the sizes it was given."""

    def __init__(self, limit: int, error: Exception) -> None:
        super().__init__()
        self.limit, self.error = limit, error
        self.batches: list[int] = []

    def __deepcopy__(self, memo: object) -> _Hungry:
        return self

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] == 8:  # not the probe of the halo
            self.batches.append(len(x))
            if len(x) > self.limit:
                raise self.error
        return x


@on_every_processor
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes"),
    ],
)
def test_out_of_memory_halves_the_batch_and_says_so_once(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    network = _Hungry(2, error)
    stainer = Stainer(network, device="cpu", precision="float32")
    windows = pixels(9, 8, 8)
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(stainer(windows), windows)
        stainer(windows[:3])
    assert network.batches == [9, 4, 2, 2, 2, 2, 1, 2, 1]
    assert len(caplog.records) == 1
    assert "halving" in caplog.text


@on_every_processor
def test_out_of_memory_with_one_block_is_an_error() -> None:
    with pytest.raises(DeviceError, match="single block"):
        Stainer(_Hungry(0, MemoryError()), device="cpu", precision="float32")(pixels(2, 8, 8))


@on_every_processor
def test_other_failures_are_not_taken_for_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        Stainer(_Hungry(0, RuntimeError("size mismatch")), device="cpu", precision="float32")(pixels(2, 8, 8))


@pytest.mark.parametrize(
    ("device", "seen"), [("cuda:99", "CUDA devices found"), ("tpu", "expected auto"), ("meta", "expected auto")]
)
def test_a_missing_device_is_one_line(device: str, seen: str) -> None:
    with pytest.raises(DeviceError, match=seen):
        Stainer(small_network(), device=device)


@pytest.mark.parametrize(
    ("name", "expected"), [("AMX", torch.bfloat16), ("AVX-512 BF16", torch.bfloat16), ("AVX2", torch.float32)]
)
def test_precision_follows_the_hardware(name: str, expected: torch.dtype) -> None:
    processor = Processor(PROCESSORS[name])
    assert choose_dtype("auto", torch.device("cpu"), processor) == expected
    assert choose_dtype("auto", torch.device("cuda"), processor) == torch.float16
    with pytest.raises(DeviceError, match="precision float8"):
        choose_dtype("float8", torch.device("cpu"), processor)


@on_every_processor
def test_describe_names_processor_precision_and_torch() -> None:
    described = Stainer(small_network(), device="cpu", precision="float32").describe()
    assert described["precision"] == "float32"
    assert described["torch"] == torch.__version__
    assert described["device"]


@on_every_processor
def test_threads_take_turns() -> None:
    stainer = Stainer(small_network(), device="cpu", precision="float32")
    windows = [pixels(1, 32, 32, seed) for seed in range(6)]
    expected = [stainer(window) for window in windows]
    with ThreadPoolExecutor(3) as pool:
        assert all(map(np.array_equal, pool.map(stainer, windows), expected))


def test_tuning_the_allocator_is_harmless() -> None:
    assert tune_allocator() == sys.platform.startswith("linux")
    assert keep_memory_flat() == sys.platform.startswith("linux")
    assert np.array_equal(np.ones(1 << 20), np.ones(1 << 20))


def stained(*colours: tuple[int, int, int]) -> NDArray[np.int64]:
    stainer = Stainer(load_generator("recolour").build(), device="cpu")
    return stainer(np.array(colours, np.uint8)[None, :, None])[0, :, 0].astype(np.int64)


def test_recolour_leaves_glass_white_and_nuclei_blue() -> None:
    glass, noisy, nucleus, cytoplasm, collagen = stained(
        (255, 255, 255), (242, 241, 243), (80, 50, 120), (190, 130, 180), (235, 170, 200)
    )
    assert glass.tolist() == [255, 255, 255]
    assert noisy.tolist() == [255, 255, 255]
    assert nucleus[2] > nucleus[0] + 30
    assert nucleus.sum() < 400
    assert cytoplasm[0] > cytoplasm[2]
    assert collagen.min() > 215
    assert collagen[0] >= collagen[1] >= collagen[2]


@given(st.tuples(*[st.integers(0, 255)] * 3), st.tuples(*[st.integers(0, 255)] * 3))
def test_recolour_by_pixels_equals_the_network(first: tuple[int, int, int], second: tuple[int, int, int]) -> None:
    network = Recolour()
    colours = torch.tensor([first, second], dtype=torch.uint8).view(1, 1, 2, 3)
    by_network = to_pixels(network(to_tensor(colours)))
    assert (by_network.int() - network.stain_pixels(colours).int()).abs().max() <= 1


def test_recolour_takes_the_glass_of_the_slide() -> None:
    yellowish = torch.tensor([230, 225, 200], dtype=torch.uint8).view(1, 1, 1, 3)
    assert Recolour(glass=(230, 225, 200)).stain_pixels(yellowish).flatten().tolist() == [255, 255, 255]
    assert Recolour().stain_pixels(yellowish).flatten().tolist() != [255, 255, 255]
