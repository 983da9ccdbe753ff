"""Fixed normalisation: folding, calibration, and that tiles then equal the whole image."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.network_shapes import every_shape
from wsi_ihc.errors import GeneratorError
from wsi_ihc.generators import (
    Architecture,
    NormStatistics,
    apply_statistics,
    build_network,
    calibration,
    fix_normalisation,
    initialise,
    resolve_mode,
)
from wsi_ihc.generators.attention import AttentionBlock
from wsi_ihc.generators.pixels import to_tensor
from wsi_ihc.generators.receptive_field import measure_alignment, measure_halo

Kind = Literal["resnet", "unet"]
NORM_LAYERS = nn.BatchNorm2d | nn.InstanceNorm2d | nn.GroupNorm


def field(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth colours with structure, ``(1, height, width, 3)``."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 8 + 1, width // 8 + 1, generator=draw)
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    noisy = smooth * 255 + 20 * torch.randn(1, 3, height, width, generator=draw)
    pixels: NDArray[np.uint8] = noisy.clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
    return pixels


def tensors(*windows: NDArray[np.uint8]) -> Tensor:
    return torch.cat([to_tensor(torch.from_numpy(window)) for window in windows])


def network_of(kind: Kind, norm: Any, *, base_channels: int = 4, **shape: Any) -> nn.Module:
    """A small network whose BatchNorm has seen an image and whose output has contrast, but is not saturated."""
    architecture = Architecture(
        kind=kind, blocks=2, downs=3, base_channels=base_channels, norm=norm, dropout=False, **shape
    )
    network = initialise(build_network(architecture), seed=1)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_(0, 0.2, generator=torch.Generator().manual_seed(2))
        elif parameter.ndim > 1:
            parameter.data.mul_(4)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(tensors(field(64, 64, 7)))
    return network.eval()


def pooling_twin(network: nn.Module) -> nn.Module:
    """InstanceNorm replaced by BatchNorm in training mode: statistics pooled over a batch, by torch itself."""
    for name, child in network.named_children():
        if isinstance(child, nn.InstanceNorm2d):
            setattr(network, name, nn.BatchNorm2d(child.num_features, affine=False))
        else:
            pooling_twin(child)
    return network


@every_shape
def test_folding_running_statistics_changes_nothing(shape: dict[str, Any]) -> None:
    network = network_of(norm="batch", **shape)
    folded, statistics = fix_normalisation(network, "running")
    x = tensors(field(32, 40))
    torch.testing.assert_close(folded(x), network(x), atol=2e-5, rtol=0)
    assert statistics is None
    assert 0.1 < folded(x).std() < 0.9
    assert not any(isinstance(module, NORM_LAYERS) for module in folded.modules())


def test_dropout_is_gone_too() -> None:
    folded, _ = fix_normalisation(build_network(Architecture(kind="resnet", base_channels=2)), "running")
    assert not any(isinstance(module, nn.Dropout) for module in folded.modules())
    assert not folded.training


@every_shape
def test_calibration_equals_one_pooled_forward_pass(shape: dict[str, Any]) -> None:
    network = network_of(norm="instance", **shape)
    sample = [field(32, 32, seed) for seed in range(3)]
    folded, statistics = fix_normalisation(network, "calibrated", sample)
    x = tensors(*sample)
    twin = pooling_twin(network_of(norm="instance", **shape)).train()
    for gate in [module for module in twin.modules() if isinstance(module, AttentionBlock)]:
        gate.W.eval()  # a gate normalises as in its training, whatever the other layers do
    torch.testing.assert_close(folded(x), twin(x), atol=2e-5, rtol=0)
    assert statistics is not None
    assert len(statistics.layers) == sum(isinstance(module, NORM_LAYERS) for module in network.modules())


@pytest.mark.parametrize("kept_bytes", [0, 20_000])
@pytest.mark.parametrize("kind", ["resnet", "unet"])
def test_activations_computed_twice_give_the_same_statistics(
    kind: Kind, kept_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of(kind, "instance")
    sample = [field(32, 32, seed) for seed in range(2)]
    _, kept = fix_normalisation(network, "calibrated", sample)
    monkeypatch.setattr(calibration, "_KEPT_BYTES", kept_bytes)
    _, recomputed = fix_normalisation(network, "calibrated", sample)
    assert kept is not None
    assert recomputed is not None
    assert recomputed.sha256 == kept.sha256


def test_a_window_is_cut_to_the_alignment() -> None:
    network = network_of("unet", "instance")
    sample = field(40, 32)
    _, cut = fix_normalisation(network, "calibrated", [sample[:, :35, :]])
    _, whole = fix_normalisation(network, "calibrated", [sample[:, :32, :]])
    assert cut is not None
    assert whole is not None
    assert cut.sha256 == whole.sha256
    with pytest.raises(GeneratorError, match="8 px or more"):
        fix_normalisation(network, "calibrated", [sample[:, :7]])


def test_batching_the_sample_changes_nothing() -> None:
    network = network_of("resnet", "instance")
    large, small = field(32, 64, 5), field(32, 32, 6)
    _, together = fix_normalisation(
        network, "calibrated", [np.concatenate([large[:, :, :32], small]), large[:, :, 32:]]
    )
    _, apart = fix_normalisation(network, "calibrated", [large[:, :, :32], small, large[:, :, 32:]])
    assert together is not None
    assert apart is not None
    for name, values in together.to_arrays().items():
        np.testing.assert_allclose(values, apart.to_arrays()[name], atol=1e-6, rtol=1e-4)


def test_statistics_survive_an_npz_file() -> None:
    network = network_of("unet", "instance")
    folded, statistics = fix_normalisation(network, "calibrated", [field(32, 32)])
    assert statistics is not None
    file = io.BytesIO()
    np.savez(file, **statistics.to_arrays())
    file.seek(0)
    again = NormStatistics.from_arrays(np.load(file))
    assert again.sha256 == statistics.sha256
    x = tensors(field(16, 16))
    assert torch.equal(apply_statistics(network, again)(x), folded(x))
    with pytest.raises(GeneratorError, match="variance is missing"):
        NormStatistics.from_arrays(dict(list(statistics.to_arrays().items())[:1]))


def test_statistics_of_another_generator_are_refused() -> None:
    _, statistics = fix_normalisation(network_of("resnet", "instance"), "calibrated", [field(32, 32)])
    assert statistics is not None
    for other in (network_of("unet", "instance"), network_of("resnet", "instance", base_channels=2)):
        with pytest.raises(GeneratorError, match="another generator"):
            apply_statistics(other, statistics)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_tile_mode_normalises_each_window_by_itself(norm: str) -> None:
    network = network_of("resnet", norm)
    fixed, _ = fix_normalisation(network, "tile")
    windows = tensors(field(32, 32, 1), field(32, 32, 2))
    published = network.train() if norm == "batch" else network
    for index in range(2):
        alone = published(windows[index : index + 1])
        torch.testing.assert_close(fixed(windows)[index : index + 1], alone, atol=1e-5, rtol=0)


def test_modes_resolve_by_the_norm() -> None:
    assert resolve_mode(network_of("resnet", "batch"), "auto") == "running"
    assert resolve_mode(network_of("unet", "instance"), "auto") == "calibrated"
    assert resolve_mode(network_of("unet", "instance"), "tile") == "tile"
    assert resolve_mode(network_of("resnet", "none"), "calibrated") == "none"
    assert resolve_mode(build_network(Architecture(kind="recolour")), "auto") == "none"


def test_what_cannot_be_fixed_is_said() -> None:
    with pytest.raises(GeneratorError, match="no running statistics; use calibrated"):
        fix_normalisation(network_of("resnet", "instance"), "running")
    with pytest.raises(GeneratorError, match="no windows of tissue"):
        fix_normalisation(network_of("resnet", "instance"), "auto")


def test_the_given_network_is_left_alone() -> None:
    network = network_of("resnet", "batch")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for mode in ("running", "tile"):
        fix_normalisation(network, mode)
    fix_normalisation(network, "calibrated", [field(32, 32)])
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("architecture", "halo", "align"),
    [
        (Architecture(kind="resnet", base_channels=2), 84, 4),
        (Architecture(kind="resnet", base_channels=2, blocks=6), 60, 4),
        (Architecture(kind="resnet", base_channels=2, blocks=6, upsampling="resize"), 64, 4),
        (Architecture(kind="resnet", base_channels=2, blocks=6, upsampling="resize", skips=True), 64, 4),
        (Architecture(kind="resnet", base_channels=2, blocks=6, upsampling="bilinear", skips=True), 68, 4),
        (Architecture(kind="unet", base_channels=2, downs=5), 64, 32),
        (Architecture(kind="unet", base_channels=2, downs=7), 256, 128),
        (Architecture(kind="unet", base_channels=2, downs=8), 512, 256),
        (Architecture(kind="identity"), 0, 1),
        (Architecture(kind="recolour"), 0, 1),
    ],
    ids=lambda value: getattr(value, "label", None),
)
@pytest.mark.parametrize("mode", ["running", "tile"])
def test_halo_and_alignment(architecture: Architecture, halo: int, align: int, mode: Any) -> None:
    fixed, _ = fix_normalisation(initialise(build_network(architecture)), mode)
    assert (measure_halo(fixed), measure_alignment(fixed)) == (halo, align)


def fixed_network(kind: Kind, norm: str) -> nn.Module:
    return fix_normalisation(network_of(kind, norm), "auto", [field(64, 64, 9)])[0]


def off_by(network: nn.Module, image: NDArray[np.uint8], core: tuple[int, int, int, int], halo: int) -> float:
    """Largest difference in grey levels between a core stained in its window and within the whole image."""
    top, left, height, width = core
    rows, columns = slice(top, top + height), slice(left, left + width)
    window = image[:, top - halo : top + height + halo, left - halo : left + width + halo]
    whole = network(tensors(image))[..., rows, columns]
    tile = network(tensors(window))[..., halo : halo + height, halo : halo + width]
    return float((whole - tile).abs().max() * 127.5)


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("kind", ["resnet", "unet"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@torch.inference_mode()
def test_tiles_equal_the_whole_image(kind: Kind, norm: str, data: st.DataObject) -> None:
    network = fixed_network(kind, norm)
    align, halo = measure_alignment(network), measure_halo(network)
    image = field(128, 160, seed=data.draw(st.integers(0, 3)))

    def placed(size: int) -> tuple[int, int]:
        length = data.draw(st.integers(1, (size - 2 * halo) // align)) * align
        return data.draw(st.integers(halo // align, (size - halo - length) // align)) * align, length

    (top, height), (left, width) = placed(128), placed(160)
    assert off_by(network, image, (top, left, height, width), halo) < 0.01


@torch.inference_mode()
@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("kind", ["resnet", "unet"])
def test_less_than_the_halo_is_not_enough(kind: Kind, norm: str) -> None:
    network = fixed_network(kind, norm)
    halo, align = measure_halo(network), measure_alignment(network)
    core = (64, 64, align, align)
    assert off_by(network, field(128, 160), core, halo) < 0.01
    assert off_by(network, field(128, 160), core, halo - align) > 1


@torch.inference_mode()
def test_statistics_of_each_tile_leave_seams_whatever_the_halo() -> None:
    network, _ = fix_normalisation(network_of("resnet", "instance"), "tile")
    assert off_by(network, field(128, 160), (48, 48, 16, 16), 48) > 1
