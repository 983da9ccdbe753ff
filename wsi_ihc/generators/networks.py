"""Generators of the pix2pix family, laid out so that published checkpoints load key for key.

Both networks take and give ``(n, 3, height, width)`` float tensors in [-1, 1]. ``height`` and ``width`` must be
multiples of the network's alignment: 4 for the resnet, ``2 ** downs`` for the U-Net.

The position of a layer inside its ``nn.Sequential`` is part of a checkpoint's format. As in the published layouts, an
absent norm keeps its position, and absent dropout does not.

Sources of the architectures: Johnson et al. 2016 (arXiv 1603.08155) for the resnet, Isola et al. 2017
(arXiv 1611.07004) for the U-Net and the initialisation, Odena et al. 2016 (doi 10.23915/distill.00003) for upsampling
without a checkerboard, Zhang 2019 (arXiv 1904.11486) for blurred sampling, Oktay et al. 2018 (arXiv 1804.03999) for
attention gates.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from wsi_ihc.config import Settings
from wsi_ihc.generators.attention import AttentionBlock
from wsi_ihc.generators.blur import BlurDown, BlurUp
from wsi_ihc.generators.builtin import Identity, Recolour

Kind = Literal["resnet", "unet", "recolour", "identity"]
Norm = Literal["batch", "instance", "none"]
Upsampling = Literal["transposed", "resize", "bilinear", "blurred"]
Downsampling = Literal["strided", "blurred"]
Padding = Literal["reflect", "zero"]

LEARNED_KINDS = ("resnet", "unet")


class Architecture(Settings):
    """All facts that are needed to build a network before its weights are loaded."""

    kind: Kind
    """``recolour`` and ``identity`` learn nothing and ignore the fields below."""
    blocks: int = Field(default=9, ge=1, le=64)
    """Residual blocks of a resnet."""
    downs: int = Field(default=8, ge=2, le=12)
    """Halvings of a U-Net: 8 for unet_256, 7 for unet_128."""
    base_channels: int = Field(default=64, ge=1, le=1024)
    """Channels at full resolution ("ngf")."""
    norm: Norm = "batch"
    """Normalisation after every inner convolution."""
    dropout: bool = True
    """Dropout of one half while training. No effect on inference, but on a resnet's key layout."""
    upsampling: Upsampling = "transposed"
    """Doubling of a resnet. ``resize`` repeats each pixel and ``bilinear`` interpolates, both before a 3x3
    convolution. ``transposed`` convolutions, as published, may leave a checkerboard. ``blurred`` is the smooth doubling
    of the antialiased resnets of CUT, ASP and PSPStain, before a convolution that pads with zeros."""
    downsampling: Downsampling = "strided"
    """Halving of a resnet: a convolution of stride 2 (``strided``), or a convolution and then a blur of stride 2
    (``blurred``, the antialiased resnets of CUT, ASP and PSPStain)."""
    padding: Padding = "reflect"
    """Padding of the residual blocks of a resnet: the reflected border, or zeros (DeepLIIF)."""
    attention: bool = False
    """Whether a U-Net has attention gates on its skip connections (BCI's ``attention_unet_32``)."""
    skips: bool = False
    """Whether a resnet has skip connections at full and half resolution, so that fine detail need not pass through the
    quarter resolution. No published checkpoint has them."""

    @property
    def label(self) -> str:
        """The name that the pix2pix family uses, for example ``resnet_9blocks`` or ``unet_256``."""
        match self.kind:
            case "resnet":
                return f"resnet_{self.blocks}blocks"
            case "unet":
                return f"{'attention_' if self.attention else ''}unet_{2**self.downs}"
            case _:
                return self.kind

    @property
    def alignment(self) -> int:
        """The sides of an input must be multiples of this, pixels."""
        match self.kind:
            case "resnet":
                return 4
            case "unet":
                return int(2**self.downs)
            case _:
                return 1

    @property
    def summary(self) -> str:
        """The architecture in one line for people."""
        if self.kind not in LEARNED_KINDS:
            return f"{self.kind}, nothing learnt"
        norm = {"batch": "BatchNorm", "instance": "InstanceNorm", "none": "no normalisation"}[self.norm]
        skips = ", skips" if self.skips and self.kind == "resnet" else ""
        return f"{self.label}, {self.base_channels} channels, {norm}{skips}"


def build_network(architecture: Architecture) -> nn.Module:
    """A new network in training mode, float32, with torch's own initial weights (see ``initialise``)."""
    match architecture.kind:
        case "resnet":
            return ResnetGenerator(architecture)
        case "unet":
            return UnetGenerator(architecture)
        case "recolour":
            return Recolour()
        case "identity":
            return Identity()


def initialise(network: nn.Module, seed: int | torch.Generator = 0) -> nn.Module:
    """Draws weights in place: convolutions N(0, 0.02), norm scales N(1, 0.02), every bias 0. Returns ``network``.

    The same seed always gives the same weights: the state of other random generators does not matter.
    """
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            else:
                mean = 1.0 if parameter.ndim == 1 else 0.0
                drawn = torch.randn(parameter.shape, generator=generator, device=generator.device)
                parameter.copy_(drawn * 0.02 + mean)
    return network


class ResnetGenerator(nn.Module):
    """7x7 convolution, two halvings, residual blocks, two doublings, 7x7 convolution, tanh; reflecting borders."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        channels, norm = architecture.base_channels, architecture.norm
        inner: list[nn.Module] = [
            ResidualBlock(4 * channels, norm, dropout=architecture.dropout, padding=architecture.padding)
            for _ in range(architecture.blocks)
        ]
        for width in (2 * channels, channels):
            halving = _halving(width, architecture.downsampling, norm)
            doubling = [*_doubling(2 * width, architecture.upsampling, norm), nn.ReLU(inplace=True)]
            inner = [*halving, *inner, *doubling]
            if architecture.skips:
                inner = [Detour(inner, width)]
        first = [nn.ReflectionPad2d(3), *_conv_norm(3, channels, 7, norm), nn.ReLU(inplace=True)]
        last = [nn.ReflectionPad2d(3), nn.Conv2d(channels, 3, 7), nn.Tanh()]
        self.model = nn.Sequential(*first, *inner, *last)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3, h, w)`` to the same shape, both in [-1, 1]."""
        stained: Tensor = self.model(x)
        return stained


class Detour(nn.Module):
    """``scale * x + f(x)`` where ``f`` halves, computes on the coarser grid and doubles again.

    The scale of each channel is learnt and starts near 0 (Touvron et al. 2021, arXiv 2103.17239): with all fine detail
    from the start, the coarser grid would hardly learn.
    """

    def __init__(self, layers: list[nn.Module], channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.scale = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.join(x, self.layers(x))

    def join(self, x: Tensor, painted: Tensor) -> Tensor:
        """The sum of the scaled input and the output of the detour."""
        return torch.addcmul(painted, x, self.scale)


class ResidualBlock(nn.Module):
    """``x + f(x)`` with two 3x3 convolutions in ``f``."""

    def __init__(self, channels: int, norm: Norm, *, dropout: bool, padding: Padding = "reflect") -> None:
        super().__init__()
        reflection = [nn.ReflectionPad2d(1)] if padding == "reflect" else []
        zeros = 0 if reflection else 1
        layers = [*reflection, *_conv_norm(channels, channels, 3, norm, padding=zeros), nn.ReLU(inplace=True)]
        if dropout:
            layers.append(nn.Dropout(0.5))
        layers += [*reflection, *_conv_norm(channels, channels, 3, norm, padding=zeros)]
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.conv_block(x)
        return x + residual


class UnetGenerator(nn.Module):
    """4x4 convolutions that halve down to the bottleneck and double again; each level has a skip connection."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        base, norm, downs = architecture.base_channels, architecture.norm, architecture.downs
        widths = [base * min(2**level, 8) for level in range(downs)]
        block: nn.Module = SkipBlock(_inner_layers(widths[-2], widths[-1], norm, None))
        for level in reversed(range(1, downs - 1)):
            # Dropout belongs to the levels at full width above the bottleneck: three of them in unet_256.
            dropout = architecture.dropout and level >= 4
            layers = _inner_layers(
                widths[level - 1], widths[level], norm, block, dropout=dropout, in_place=not architecture.attention
            )
            outer, inner = widths[level - 1], widths[level]
            block = AttentionBlock(layers, outer, inner) if architecture.attention else SkipBlock(layers)
        doubled = 2 * widths[0]
        self.model = SkipBlock(
            [
                nn.Conv2d(3, base, 4, stride=2, padding=1, bias=_needs_bias(norm)),
                block,
                nn.ReLU(inplace=True),
                nn.ConvTranspose2d(doubled, 3, 4, stride=2, padding=1),
                nn.Tanh(),
            ],
            skip=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3, h, w)`` to the same shape, both in [-1, 1]."""
        stained: Tensor = self.model(x)
        return stained


class SkipBlock(nn.Module):
    """One level of the U-Net: ``[x, f(x)]`` along the channels, or ``f(x)`` alone at the outermost level."""

    def __init__(self, layers: list[nn.Module], *, skip: bool = True) -> None:
        super().__init__()
        self.model = nn.Sequential(*layers)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        # f starts with an in-place LeakyReLU, so the kept x is rectified too. The next layer up is a ReLU, so the
        # result is the same; this saves a third of the memory of the network.
        inner: Tensor = self.model(x)
        return torch.cat((x, inner), dim=1) if self.skip else inner


def _inner_layers(
    outer: int, inner: int, norm: Norm, block: nn.Module | None, *, dropout: bool = False, in_place: bool = True
) -> list[nn.Module]:
    """Layers of an inner level around ``block``; without a block, of the bottleneck, with no norm on the way down."""
    bias = _needs_bias(norm)
    down: list[nn.Module] = [nn.LeakyReLU(0.2, inplace=in_place), nn.Conv2d(outer, inner, 4, 2, 1, bias=bias)]
    if block is not None:
        down += [norm_layer(inner, norm), block]
    wide = 2 * inner if block is not None else inner
    up: list[nn.Module] = [
        nn.ReLU(inplace=in_place),
        nn.ConvTranspose2d(wide, outer, 4, 2, 1, bias=bias),
        norm_layer(outer, norm),
    ]
    return [*down, *up, *([nn.Dropout(0.5)] if dropout else [])]


def _conv_norm(inside: int, outside: int, side: int, norm: Norm, stride: int = 1, padding: int = 0) -> list[nn.Module]:
    conv = nn.Conv2d(inside, outside, side, stride, padding, bias=_needs_bias(norm))
    return [conv, norm_layer(outside, norm)]


def _halving(channels: int, downsampling: Downsampling, norm: Norm) -> list[nn.Module]:
    """Half the height and width, twice the channels."""
    match downsampling:
        case "strided":
            return [*_conv_norm(channels, 2 * channels, 3, norm, stride=2, padding=1), nn.ReLU(inplace=True)]
        case "blurred":
            convolved = _conv_norm(channels, 2 * channels, 3, norm, padding=1)
            return [*convolved, nn.ReLU(inplace=True), BlurDown()]


def _doubling(channels: int, upsampling: Upsampling, norm: Norm) -> list[nn.Module]:
    """Twice the height and width, half the channels."""
    half, bias = channels // 2, _needs_bias(norm)
    match upsampling:
        case "transposed":
            transposed = nn.ConvTranspose2d(channels, half, 3, stride=2, padding=1, output_padding=1, bias=bias)
            return [transposed, norm_layer(half, norm)]
        case "resize" | "bilinear":
            up = nn.Upsample(scale_factor=2, mode="nearest" if upsampling == "resize" else "bilinear")
            return [up, nn.ReflectionPad2d(1), *_conv_norm(channels, half, 3, norm)]
        case "blurred":
            return [BlurUp(), *_conv_norm(channels, half, 3, norm, padding=1)]


def norm_layer(channels: int, norm: Norm) -> nn.Module:
    """The layer at the position of a norm; no norm is an identity, which keeps the position."""
    match norm:
        case "batch":
            return nn.BatchNorm2d(channels)
        case "instance":
            return nn.InstanceNorm2d(channels)
        case "none":
            return nn.Identity()


def _needs_bias(norm: Norm) -> bool:
    """The published rule: only beside InstanceNorm, which has no shift of its own here."""
    return norm == "instance"
