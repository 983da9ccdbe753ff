"""Checkpoints of other programs against plain restatements of their networks, in their own layout of keys."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from wsi_ihc.errors import GeneratorError
from wsi_ihc.generators import (
    Architecture,
    Bundle,
    GeneratorCard,
    build_network,
    import_checkpoint,
    initialise,
    load_generator,
    read_pix2pix_checkpoint,
)

State = dict[str, Tensor]


class Layers:
    """Draws the weights of a network while it is first restated, and applies them by key."""

    def __init__(self, norm: str) -> None:
        self.state: State = {}
        self.norm = norm
        self._random = torch.Generator().manual_seed(3)

    def _weight(self, key: str, *shape: int) -> Tensor:
        if key not in self.state:
            self.state[key] = torch.randn(shape, generator=self._random) * (0.3 if len(shape) == 1 else 0.2)
        return self.state[key]

    def conv(self, key: str, x: Tensor, out: int, side: int, *, bias: bool | None = None, **how: Any) -> Tensor:
        bias = self.norm == "instance" if bias is None else bias
        weight = self._weight(f"{key}.weight", out, x.shape[1], side, side)
        return F.conv2d(x, weight, self._weight(f"{key}.bias", out) if bias else None, **how)

    def transposed(self, key: str, x: Tensor, out: int, side: int, *, bias: bool | None = None, **how: Any) -> Tensor:
        bias = self.norm == "instance" if bias is None else bias
        weight = self._weight(f"{key}.weight", x.shape[1], out, side, side)
        return F.conv_transpose2d(x, weight, self._weight(f"{key}.bias", out) if bias else None, **how)

    def normalised(self, key: str, x: Tensor, norm: str | None = None) -> Tensor:
        channels = x.shape[1]
        if (norm or self.norm) == "instance":
            return F.instance_norm(x)
        variance = self.state.setdefault(f"{key}.running_var", torch.rand(channels, generator=self._random) + 0.5)
        self.state.setdefault(f"{key}.num_batches_tracked", torch.tensor(7))
        return F.batch_norm(
            x,
            self._weight(f"{key}.running_mean", channels),
            variance,
            self._weight(f"{key}.weight", channels),
            self._weight(f"{key}.bias", channels),
        )

    def filter(self, key: str, taps: list[float], channels: int, gain: float) -> Tensor:
        row = torch.tensor(taps)
        kernel = torch.outer(row, row) / row.sum() ** 2 * gain
        return self.state.setdefault(f"{key}.filt", kernel.repeat(channels, 1, 1, 1))


def antialiased_resnet(layers: Layers, x: Tensor, base: int = 4, blocks: int = 2, *, up: bool = True) -> Tensor:
    """CUT, ASP, PSPStain: blurs before every halving and after every doubling, zeros beyond the border there."""
    x = F.relu(layers.normalised("model.2", layers.conv("model.1", F.pad(x, (3,) * 4, "reflect"), base, 7)))
    for place, width in ((4, 2 * base), (8, 4 * base)):
        x = layers.conv(f"model.{place}", x, width, 3, padding=1)
        x = F.relu(layers.normalised(f"model.{place + 1}", x))
        blur = layers.filter(f"model.{place + 3}", [1, 2, 1], width, 1)
        x = F.conv2d(F.pad(x, (1,) * 4, "reflect"), blur, stride=2, groups=width)
    for block in range(12, 12 + blocks):
        inner = layers.conv(f"model.{block}.conv_block.1", F.pad(x, (1,) * 4, "reflect"), 4 * base, 3)
        inner = F.relu(layers.normalised(f"model.{block}.conv_block.2", inner))
        inner = layers.conv(f"model.{block}.conv_block.5", F.pad(inner, (1,) * 4, "reflect"), 4 * base, 3)
        x = x + layers.normalised(f"model.{block}.conv_block.6", inner)
    place = 12 + blocks
    for width in (2 * base, base):
        if up:
            blur = layers.filter(f"model.{place}", [1, 3, 3, 1], 2 * width, 4)
            wide = F.conv_transpose2d(F.pad(x, (1,) * 4, "replicate"), blur, stride=2, padding=2, groups=2 * width)
            x = layers.conv(f"model.{place + 1}", wide[:, :, 1:-1, 1:-1], width, 3, padding=1)
            x, place = F.relu(layers.normalised(f"model.{place + 2}", x)), place + 4
        else:
            x = layers.transposed(f"model.{place}", x, width, 3, stride=2, padding=1, output_padding=1)
            x, place = F.relu(layers.normalised(f"model.{place + 1}", x)), place + 3
    return layers.conv(f"model.{place + 1}", F.pad(x, (3,) * 4, "reflect"), 3, 7, bias=True).tanh()


def zero_padded_resnet(layers: Layers, x: Tensor, base: int = 4, *, dropout: bool = False) -> Tensor:
    """DeepLIIF: residual blocks whose convolutions see zeros beyond the border."""
    x = F.relu(layers.normalised("model.2", layers.conv("model.1", F.pad(x, (3,) * 4, "reflect"), base, 7)))
    for place, width in ((4, 2 * base), (7, 4 * base)):
        x = layers.conv(f"model.{place}", x, width, 3, stride=2, padding=1)
        x = F.relu(layers.normalised(f"model.{place + 1}", x))
    second = 4 if dropout else 3
    for block in (10, 11):
        inner = layers.conv(f"model.{block}.conv_block.0", x, 4 * base, 3, padding=1)
        inner = F.relu(layers.normalised(f"model.{block}.conv_block.1", inner))
        inner = layers.conv(f"model.{block}.conv_block.{second}", inner, 4 * base, 3, padding=1)
        x = x + layers.normalised(f"model.{block}.conv_block.{second + 1}", inner)
    for place, width in ((12, 2 * base), (15, base)):
        x = layers.transposed(f"model.{place}", x, width, 3, stride=2, padding=1, output_padding=1)
        x = F.relu(layers.normalised(f"model.{place + 1}", x))
    return layers.conv("model.19", F.pad(x, (3,) * 4, "reflect"), 3, 7, bias=True).tanh()


def attention_unet(layers: Layers, x: Tensor, base: int = 2) -> Tensor:
    """BCI's attention_unet_32: five halvings, gates at the three levels between, the coarsest rectified in place."""
    widths = [base, 2 * base, 4 * base, 8 * base, 8 * base]

    def innermost(key: str, x: Tensor) -> Tensor:
        x = F.leaky_relu(x, 0.2)
        inner = layers.conv(f"{key}.model.1", x, widths[4], 4, stride=2, padding=1)
        inner = layers.transposed(f"{key}.model.3", F.relu(inner), widths[3], 4, stride=2, padding=1)
        return torch.cat([x, layers.normalised(f"{key}.model.4", inner)], 1)

    def gated(key: str, x: Tensor, level: int) -> Tensor:
        outer, inner = widths[level - 1], widths[level]
        down = layers.conv(f"{key}.model.1", F.leaky_relu(x, 0.2), inner, 4, stride=2, padding=1)
        down = layers.normalised(f"{key}.model.2", down)
        inside = f"{key}.model.3"
        coarse = innermost(inside, down) if level == 3 else gated(inside, down, level + 1)
        theta = layers.conv(f"{key}.theta", x, outer, 2, stride=2, bias=False)
        phi = layers.conv(f"{key}.phi", coarse, outer, 1, bias=True)
        weight = torch.sigmoid(layers.conv(f"{key}.psi", F.relu(theta + phi), 1, 1, bias=True))
        weight = F.interpolate(weight, size=x.shape[2:], mode="bilinear")
        across = layers.normalised(f"{key}.W.1", layers.conv(f"{key}.W.0", weight * x, outer, 1, bias=True), "batch")
        up = layers.transposed(f"{key}.model.5", F.relu(coarse), outer, 4, stride=2, padding=1)
        return torch.cat([across, layers.normalised(f"{key}.model.6", up)], 1)

    x = layers.conv("model.model.0", x, base, 4, stride=2, padding=1)
    x = gated("model.model.1", x, 1)
    return layers.transposed("model.model.3", F.relu(x), 3, 4, stride=2, padding=1, bias=True).tanh()


def with_twins(state: State, level: str = "model.model.1", levels: int = 3) -> State:
    """Every gated level's way down and coarser level once more under ``gating``, as published files have them."""
    if levels == 0:
        return state
    state = with_twins(state, f"{level}.model.3", levels - 1)
    inside = f"{level}.model."
    twins = {f"{level}.gating.{key.removeprefix(inside)}": key for key in state if key.startswith(inside)}
    return state | {twin: state[key] for twin, key in twins.items() if twin[len(f"{level}.gating.")] in "123"}


RESTATED = {
    "antialiased": antialiased_resnet,
    "antialiased, transposed": lambda layers, x: antialiased_resnet(layers, x, up=False),
    "zero padding": zero_padded_resnet,
    "zero padding, dropout": lambda layers, x: zero_padded_resnet(layers, x, dropout=True),
    "attention": attention_unet,
}
LABELS = {"attention": "attention_unet_32"}


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("name", RESTATED)
def test_a_foreign_network_gives_what_its_restatement_gives(tmp_path: Path, name: str, norm: str) -> None:
    layers = Layers(norm)
    x = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 2 - 1
    expected = RESTATED[name](layers, x)
    state = with_twins(layers.state) if name == "attention" else layers.state
    torch.save(state, tmp_path / "net.pth")
    architecture, weights = read_pix2pix_checkpoint(tmp_path / "net.pth")
    assert architecture.label == LABELS.get(name, "resnet_2blocks")
    assert architecture.norm == norm
    network = build_network(architecture)
    network.load_state_dict(weights)
    with torch.no_grad():
        # The restatement of InstanceNorm has no running statistics, and BatchNorm uses those of its training.
        assert (network.eval()(x) - expected).abs().max() < 1e-5


def test_the_attention_unet_has_as_many_keys_as_the_published_one() -> None:
    layers = Layers("batch")
    attention_unet(layers, torch.zeros(1, 3, 32, 32))
    assert len(with_twins(layers.state)) == 269


def test_another_blur_is_refused(tmp_path: Path) -> None:
    layers = Layers("instance")
    antialiased_resnet(layers, torch.zeros(1, 3, 16, 16))
    layers.state["model.7.filt"] = torch.ones(8, 1, 3, 3) / 9
    torch.save(layers.state, tmp_path / "net.pth")
    with pytest.raises(GeneratorError, match=r"model\.7\.filt is another blur"):
        read_pix2pix_checkpoint(tmp_path / "net.pth")


SMALL = Architecture(kind="resnet", blocks=2, base_channels=2)


def drawn(seed: int) -> State:
    return dict(initialise(build_network(SMALL), seed).state_dict())


def _prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


WRAPPERS = {
    "lightning": lambda state: {"state_dict": _prefixed("generator.", state), "epoch": 3},
    "lightning, model": lambda state: {"state_dict": _prefixed("model.", state)},
    "parallel inside": lambda state: _prefixed("netG.module.", state),
    "compiled": lambda state: _prefixed("_orig_mod.module.", state),
    "ema": lambda state: {"params_ema": state},
    "average of weights": lambda state: _prefixed("module.", state) | {"n_averaged": torch.tensor(4)},
    "saved twice": lambda state: {"G": state, "G_copy": {key: value.clone() for key, value in state.items()}},
    "beside a discriminator": lambda state: {"G": state, "D": {"model.0.weight": torch.zeros(4, 6, 4, 4)}},
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_wrappers_of_training_programs_do_not_matter(tmp_path: Path, wrap: Any) -> None:
    state = drawn(1)
    torch.save(wrap(state), tmp_path / "net.ckpt")
    architecture, weights = read_pix2pix_checkpoint(tmp_path / "net.ckpt")
    assert architecture == SMALL
    torch.testing.assert_close(weights, state)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (lambda a, b: {"netG_A": a, "netG_B": b}, ["netG_A", "netG_B"]),
        (
            lambda a, b: {"state_dict": _prefixed("G.", a) | _prefixed("G_ema.", b)},
            ["state_dict/G", "state_dict/G_ema"],
        ),
        (lambda a, b: a | _prefixed("ema.", b), ["(top)", "ema"]),
    ],
)
def test_of_several_generators_one_must_be_named(tmp_path: Path, content: Any, names: list[str]) -> None:
    first, second = drawn(1), drawn(2)
    path = tmp_path / "net.pth"
    torch.save(content(first, second), path)
    with pytest.raises(GeneratorError, match="2 generators in one file; choose with --part") as caught:
        read_pix2pix_checkpoint(path)
    assert ", ".join(names) in str(caught.value)
    for name, expected in zip(names, (first, second), strict=True):
        torch.testing.assert_close(read_pix2pix_checkpoint(path, name)[1], expected)
    with pytest.raises(GeneratorError, match="no generator netG_C in it"):
        read_pix2pix_checkpoint(path, "netG_C")


def test_a_flipped_bit_in_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    """In the weights as well as in the index: torch itself does not compare check sums."""
    path = tmp_path / "net.pth"
    torch.save(drawn(1), path)
    sound = path.read_bytes()
    for position in range(100, len(sound) - 100, len(sound) // 40):
        damaged = bytearray(sound)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        try:
            weights = read_pix2pix_checkpoint(path)[1]
        except GeneratorError:
            continue
        torch.testing.assert_close(weights, drawn(1), msg="a damaged checkpoint gave other weights")


def test_a_packed_archive_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", bytes(200 << 20))
    with pytest.raises(GeneratorError, match="not an archive that torch has written"):
        read_pix2pix_checkpoint(tmp_path / "bomb.pth")


def test_a_card_that_claims_a_giant_network_costs_no_memory() -> None:
    giant = Architecture(kind="resnet", blocks=64, base_channels=1024)
    card = GeneratorCard(name="giant", architecture=giant, mpp=0.5, stain="HER2 IHC")
    with pytest.raises(GeneratorError, match=r"model\.1\.weight is missing"):
        Bundle(card, {"a": torch.zeros(1)}).build()


def test_the_output_path_of_an_import_finds_what_it_wrote(tmp_path: Path) -> None:
    torch.save(drawn(1), tmp_path / "net.pth")
    output = str(tmp_path / "folder" / "net")
    import_checkpoint(tmp_path / "net.pth", output, mpp=0.46, stain="HER2 IHC")
    assert load_generator(output).card.name == "net"
