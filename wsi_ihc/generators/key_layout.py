"""The architecture of a generator, read from the names and shapes of its weights.

The position of a layer in its ``nn.Sequential`` is part of its key. Layers without weights (padding, dropout, doubling
by interpolation) are visible only in the positions of the layers after them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from wsi_ihc.config import first_problem
from wsi_ihc.generators.blur import binomial
from wsi_ihc.generators.networks import Architecture, Norm

State = dict[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]

FIRST_LAYERS = {"model.1.weight": 7, "model.model.0.weight": 4}
"""Key of the first convolution of a resnet and of a U-Net, and its side. Text before it in a key is from a wrapper."""

_BLOCK_LAYOUTS: Mapping[tuple[int, ...], tuple[str, bool]] = {
    (1, 5): ("reflect", False),
    (1, 6): ("reflect", True),
    (0, 3): ("zero", False),
    (0, 4): ("zero", True),
}
"""Padding and dropout of a residual block, by the positions of its two convolutions."""
_FIRST_BLOCK, _FIRST_BLURRED_BLOCK = 10, 12
"""Position of the first residual block: a strided halving is convolution, norm and rectifier; a blurred one has a blur
too."""


class NotRecognisedError(Exception):
    """These tensors are no generator of the family; the text is the reason."""


def infer_architecture(state: State) -> tuple[Architecture, State]:
    """The architecture of ``state``, and ``state`` with only the weights of that architecture.

    Blur filters are constants of the network, and published attention U-Nets store half of their layers twice: both
    are checked and left out.

    Raises:
        NotRecognisedError: no generator of the family, or one with other constants.
    """
    state = _without_twins(_without_filters(state))
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    match shapes:
        case {"model.1.weight": (base, 3, 7, 7)}:
            found = _infer_resnet(shapes)
        case {"model.model.0.weight": (base, 3, 4, 4)}:
            found = _infer_unet(shapes)
        case _:
            raise NotRecognisedError(f"{len(shapes)} tensors in an unknown layout")
    try:
        return Architecture(base_channels=base, **found), state
    except ValidationError as error:
        raise NotRecognisedError(first_problem(error)) from None


def _infer_resnet(shapes: Shapes) -> dict[str, Any]:
    blocks = sorted({int(key.split(".")[1]) for key in shapes if ".conv_block." in key})
    first = blocks[0] if blocks else _FIRST_BLOCK
    convolutions = tuple(
        place for place in range(8) if len(shapes.get(f"model.{first}.conv_block.{place}.weight", ())) == 4
    )
    padding, dropout = _BLOCK_LAYOUTS.get(convolutions, ("reflect", False))
    return {
        "kind": "resnet",
        "blocks": len(blocks),
        "norm": _infer_norm(shapes, "model.1.bias"),
        "padding": padding,
        "dropout": dropout,
        "downsampling": "blurred" if first == _FIRST_BLURRED_BLOCK else "strided",
        "upsampling": _infer_upsampling(shapes, after=first + len(blocks)),
    }


def _infer_upsampling(shapes: Shapes, after: int) -> str:
    """The kind of doubling, from the position of its convolution behind position ``after``.

    Bilinear interpolation before a reflecting border has the positions of ``resize``; no published network uses it.
    """
    for place, upsampling in enumerate(("transposed", "blurred", "resize")):
        if len(shapes.get(f"model.{after + place}.weight", ())) == 4:
            return upsampling
    raise NotRecognisedError("looks like a resnet without its way up")


def _infer_unet(shapes: Shapes) -> dict[str, Any]:
    downs = max((key.count(".model.") for key in shapes if key.endswith(".1.weight")), default=0)
    attention = any(".psi." in key for key in shapes)
    return {"kind": "unet", "downs": downs, "norm": _infer_norm(shapes, "model.model.0.bias"), "attention": attention}


def _infer_norm(shapes: Shapes, inner_bias: str) -> Norm:
    # An attention gate has BatchNorm, whatever norm the other layers have.
    if any(key.endswith(".weight") and ".W." not in key and len(shape) == 1 for key, shape in shapes.items()):
        return "batch"
    return "instance" if inner_bias in shapes else "none"


def _without_filters(state: State) -> State:
    """``state`` without the blur filters of an antialiased resnet, which must be the usual ones."""
    weights: State = {}
    for key, tensor in state.items():
        if not key.endswith(".filt"):
            weights[key] = tensor
        elif not _is_usual(tensor):
            raise NotRecognisedError(f"{key} is another blur than 1 2 1 down and 1 3 3 1 up")
    return weights


def _is_usual(tensor: Tensor) -> bool:
    taps = tensor.shape[-1]
    if tensor.ndim != 4 or taps not in (3, 4):
        return False
    expected = binomial(taps) * (4 if taps == 4 else 1)
    return bool(torch.allclose(tensor.float(), expected.expand_as(tensor), atol=1e-4))


def _without_twins(state: State) -> State:
    """``state`` without the second copy (``gating``) of the way down in an attention level."""
    weights: State = {}
    for key, tensor in state.items():
        if ".gating." not in key:
            weights[key] = tensor
            continue
        twin = state.get(key.replace(".gating.", ".model."))
        if twin is None or not torch.equal(twin, tensor):
            raise NotRecognisedError(f"looks like an attention U-Net, but {key} differs from its twin")
    return weights
