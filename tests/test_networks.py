"""Networks: the published layouts, counts and shapes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from tests.network_shapes import every_shape
from wsi_ihc.generators import Architecture, build_network, initialise


def parameters(architecture: Architecture) -> int:
    return sum(parameter.numel() for parameter in build_network(architecture).parameters())


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        (Architecture(kind="resnet"), 11_383_427),
        (Architecture(kind="resnet", norm="instance"), 11_378_179),
        (Architecture(kind="unet"), 54_413_955),
        (Architecture(kind="unet", downs=7), 41_828_995),
    ],
    ids=lambda value: getattr(value, "label", None),
)
def test_published_parameter_counts(architecture: Architecture, expected: int) -> None:
    with torch.device("meta"):
        assert parameters(architecture) == expected


def test_resnet_batchnorm_keys_are_the_published_ones() -> None:
    with torch.device("meta"):
        state = build_network(Architecture(kind="resnet")).state_dict()
    norms = [2, 5, 8, *(f"{block}.conv_block.{place}" for block in range(10, 19) for place in (2, 7)), 20, 23]
    convs = [1, 4, 7, *(f"{block}.conv_block.{place}" for block in range(10, 19) for place in (1, 6)), 19, 22, 26]
    entries = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {f"model.{norm}.{entry}" for norm in norms for entry in entries}
    expected |= {f"model.{conv}.weight" for conv in convs} | {"model.26.bias"}
    assert set(state) == expected
    assert len(state) == 140
    assert state["model.1.weight"].shape == (64, 3, 7, 7)
    assert state["model.19.weight"].shape == (256, 128, 3, 3)


def test_resnet_without_dropout_closes_the_gap() -> None:
    with torch.device("meta"):
        state = build_network(Architecture(kind="resnet", norm="instance", dropout=False)).state_dict()
    assert len(state) == 48
    assert {"model.10.conv_block.1.bias", "model.10.conv_block.5.bias"} <= set(state)


def test_resizing_shifts_the_later_keys_and_no_other() -> None:
    with torch.device("meta"):
        published, resizing = (
            build_network(Architecture(kind="resnet", dropout=False, upsampling=upsampling)).state_dict()
            for upsampling in ("transposed", "resize")
        )
    early = [key for key in published if int(key.split(".")[1]) < 19]
    assert list(resizing)[: len(early)] == early
    later = {key: tuple(value.shape) for key, value in resizing.items() if key not in early and value.ndim > 1}
    assert later == {
        "model.21.weight": (128, 256, 3, 3),
        "model.26.weight": (64, 128, 3, 3),
        "model.30.weight": (3, 64, 7, 7),
    }


def test_resizing_leaves_no_checkerboard() -> None:
    """Of a flat image every pixel is made by the same weights; transposed convolutions use others at odd places."""
    flat = torch.full((1, 3, 64, 64), 0.5)
    for upsampling, even in (("resize", True), ("bilinear", True), ("transposed", False)):
        architecture = Architecture(kind="resnet", blocks=1, base_channels=2, norm="none", upsampling=upsampling)
        network = initialise(build_network(architecture), seed=1).eval()
        for parameter in network.parameters():
            parameter.data.mul_(10)
        inner = network(flat).detach()[..., 28:36, 28:36]
        assert (float(inner.std(dim=(2, 3)).max()) < 1e-6) == even


def test_bilinear_doubling_leaves_no_blocks() -> None:
    """What the quarter grid paints comes back without steps, and its weights stand where ``resize`` has them."""
    coarse = torch.zeros(1, 1, 4, 4)
    coarse[..., 2, 2] = 1
    repeated, smooth = (
        Architecture(kind="resnet", blocks=1, base_channels=2, dropout=False, upsampling=upsampling)
        for upsampling in ("resize", "bilinear")
    )
    steps = []
    for architecture in (repeated, smooth):
        network = build_network(architecture)
        (upsample, _) = [layer for layer in network.modules() if isinstance(layer, torch.nn.Upsample)]
        steps.append(float(upsample(upsample(coarse)).diff(dim=-1).abs().max()))
    assert steps == [1.0, pytest.approx(0.1875)], "three sixteenths at most between neighbours"
    assert list(build_network(repeated).state_dict()) == list(build_network(smooth).state_dict())


def test_skips_let_detail_past_the_quarter() -> None:
    """With everything on the detours silenced, the first and the last convolution remain: every pixel by itself."""
    architecture = Architecture(kind="resnet", blocks=1, base_channels=2, norm="none", skips=True)
    network = initialise(build_network(architecture), seed=1).eval()
    for name, parameter in network.named_parameters():
        parameter.data.mul_(0 if ".layers." in name else 10)
    he = torch.zeros(1, 3, 32, 32)
    he[..., 16, 16] = 1
    ripple = (network(he) - network(torch.zeros_like(he))).abs().amax(dim=(0, 1))
    assert ripple[16, 16] > 1e-3
    assert not ripple[:, 23:].any()
    assert not ripple[23:].any()


def test_unet_keys_nest_as_published() -> None:
    with torch.device("meta"):
        state = build_network(Architecture(kind="unet")).state_dict()
    innermost = "model.model." + "1.model." + "3.model." * 6
    shapes = {
        "model.model.0.weight": (64, 3, 4, 4),
        "model.model.1.model.1.weight": (128, 64, 4, 4),
        "model.model.1.model.2.running_var": (128,),
        f"{innermost}1.weight": (512, 512, 4, 4),
        f"{innermost}3.weight": (512, 512, 4, 4),
        f"{innermost}4.running_mean": (512,),
        "model.model.1.model.5.weight": (256, 64, 4, 4),
        "model.model.3.weight": (128, 3, 4, 4),
        "model.model.3.bias": (3,),
    }
    assert {key: tuple(state[key].shape) for key in shapes} == shapes
    assert "model.model.0.bias" not in state


@pytest.mark.parametrize(("downs", "expected"), [(5, 0), (7, 2), (8, 3)])
def test_unet_dropout_stands_in_the_middle(downs: int, expected: int) -> None:
    network = build_network(Architecture(kind="unet", base_channels=1, downs=downs))
    assert sum(isinstance(module, nn.Dropout) for module in network.modules()) == expected


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@every_shape
def test_output_has_the_input_s_shape_and_range(shape: dict[str, Any], norm: str) -> None:
    architecture = Architecture(blocks=1, downs=3, base_channels=2, norm=norm, **shape)
    network = initialise(build_network(architecture))
    stained: Tensor = network(torch.rand(2, 3, 16, 24) * 2 - 1)
    assert stained.shape == (2, 3, 16, 24)
    assert stained.abs().max() <= 1


def test_unet_equals_its_formula_without_in_place_layers() -> None:
    """The copy that a skip connection keeps is rectified in place; that must not be seen."""
    network = initialise(build_network(Architecture(kind="unet", downs=4, base_channels=2, norm="instance"))).eval()
    x = torch.randn(1, 3, 32, 32)
    stained = network(x)
    for module in network.modules():
        if isinstance(module, nn.ReLU | nn.LeakyReLU):
            module.inplace = False
    torch.testing.assert_close(network(x), stained)


def test_initialise_draws_as_published_and_repeats() -> None:
    first, second = (initialise(build_network(Architecture(kind="resnet", base_channels=16)), seed=3) for _ in range(2))
    for (name, value), other in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
    kernel = first.state_dict()["model.10.conv_block.1.weight"]
    assert kernel.std().item() == pytest.approx(0.02, rel=0.05)
    scale = first.state_dict()["model.10.conv_block.2.weight"]
    assert scale.mean().item() == pytest.approx(1, abs=0.01)
    assert not first.state_dict()["model.26.bias"].any()


def test_every_parameter_gets_a_gradient() -> None:
    for kind in ("resnet", "unet"):
        network = initialise(build_network(Architecture(kind=kind, blocks=1, downs=3, base_channels=2)))
        network(torch.rand(2, 3, 16, 16)).mean().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="transformer"):
        Architecture.model_validate({"kind": "unet", "transformer": True})
