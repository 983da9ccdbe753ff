"""Weights of other programs in: checkpoints of the pix2pix family, recognised by their keys and shapes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wsi_ihc.config import first_problem
from wsi_ihc.errors import GeneratorError, one_line
from wsi_ihc.generators.networks import Architecture, Norm, build_network

State = dict[str, Tensor]

# What wrappers put in front of a generator's own keys: DataParallel, Lightning modules, torch.compile.
_PREFIXES = ("module.", "_orig_mod.", "netG.", "net_G.", "generator.", "G.")
_DEPTH = 4


def read_pix2pix_checkpoint(path: str | Path) -> tuple[Architecture, State]:
    """The generator in a ``.pth`` (or ``.safetensors``) file of the pix2pix family, float32.

    The architecture is read from keys and shapes, and then every tensor is checked against it. A U-Net's keys do
    not tell whether it was trained with dropout: the family's default, yes, is assumed.

    Raises:
        GeneratorError: for a file that is no such checkpoint; the line says what was seen instead.
    """
    path = Path(path)
    problem = None
    for tensors in _tensor_dicts(_read(path)):
        state = _without_prefixes(tensors)
        try:
            architecture = _infer(state)
            return architecture, _checked(state, architecture)
        except _NotRecognisedError as error:
            problem = problem or str(error)
    raise GeneratorError(f"{path}: {problem or 'holds no tensors'}; expected a resnet or U-Net of the pix2pix family")


class _NotRecognisedError(Exception):
    """Why these tensors are no generator that we know."""


def _read(path: Path) -> object:
    """Whatever the file holds, without ever running code from it."""
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError as error:
        raise GeneratorError(f"{path}: cannot be read ({error.strerror})") from None
    if seen := _recognise_other(head):
        raise GeneratorError(f"{path}: {seen}, not a checkpoint; download it again")
    try:
        if head[8:9] == b"{":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise GeneratorError(f"{path}: damaged safetensors file ({one_line(error)})") from None
    except Exception as error:
        # A damaged or hostile pickle may raise anything at all.
        raise GeneratorError(f"{path}: {_explain(error, head)}") from None


def _recognise_other(head: bytes) -> str | None:
    text = head.lstrip().lower()
    if not head:
        return "an empty file"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "an HTML page"
    if text.startswith(b"version https://git-lfs"):
        return "a git-LFS pointer"
    return None


def _explain(error: Exception, head: bytes) -> str:
    text = one_line(error)
    if name := re.search(r"GLOBAL ([\w.]+)", text):
        return f"a pickle that wants to run {name.group(1)}: refused; save the plain state dict and import that"
    if head.startswith(b"PK"):
        return "truncated or damaged checkpoint; download it again"
    return f"not a checkpoint that torch can read (it starts with the bytes {head[:4].hex()})"


def _tensor_dicts(content: object, depth: int = _DEPTH) -> Iterator[State]:
    """Every dict of tensors in ``content``, outermost first, also inside ``{'state_dict': …}`` and the like."""
    if isinstance(content, Mapping) and depth:
        tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        if tensors:
            yield tensors
        for value in content.values():
            yield from _tensor_dicts(value, depth - 1)


def _without_prefixes(state: State) -> State:
    """Keys as the generator itself has them. Other networks saved beside it (a discriminator, say) are left out."""
    for _ in range(_DEPTH):
        for prefix in _PREFIXES:
            inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            if inside:
                state = inside
    return state


def _infer(state: State) -> Architecture:
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    match shapes:
        case {"model.1.weight": (base, 3, 7, 7)}:
            found: dict[str, Any] = _infer_resnet(shapes)
        case {"model.model.0.weight": (base, 3, 4, 4)}:
            found = _infer_unet(shapes)
        case _:
            raise _NotRecognisedError(_summary(shapes))
    try:
        return Architecture(base_channels=base, **found)
    except ValidationError as error:
        raise _NotRecognisedError(first_problem(error)) from None


def _infer_resnet(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    blocks = {key.split(".")[1] for key in shapes if ".conv_block." in key}
    # With dropout everything after it in a block stands one place further on.
    dropout = "model.10.conv_block.6.weight" in shapes and len(shapes["model.10.conv_block.6.weight"]) == 4
    return {
        "kind": "resnet",
        "blocks": len(blocks),
        "norm": _infer_norm(shapes, "model.1.bias"),
        "dropout": dropout,
        # Repeating and padding have no weights, so the convolution after them stands two places further on. Nor has
        # bilinear interpolation, which no published network uses.
        "upsampling": "resize" if f"model.{12 + len(blocks)}.weight" in shapes else "transposed",
    }


def _infer_unet(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    downs = max((key.count(".model.") for key in shapes if key.endswith(".1.weight")), default=0)
    return {"kind": "unet", "downs": downs, "norm": _infer_norm(shapes, "model.model.0.bias")}


def _infer_norm(shapes: Mapping[str, tuple[int, ...]], inner_bias: str) -> Norm:
    if any(key.endswith(".weight") and len(shape) == 1 for key, shape in shapes.items()):
        return "batch"
    return "instance" if inner_bias in shapes else "none"


def _checked(state: State, architecture: Architecture) -> State:
    """Exactly the tensors that ``architecture`` needs, as contiguous float32 copies."""
    with torch.device("meta"):
        expected = build_network(architecture).state_dict()
    if architecture.norm == "instance":
        # Files from before torch 0.4 hold running statistics of InstanceNorm that were never used.
        state = {
            key: value for key, value in state.items() if not re.search(r"running_(mean|var)$|batches_tracked$", key)
        }
    checked: State = {}
    for key, like in expected.items():
        tensor = state.get(key, torch.zeros((), dtype=torch.int64) if key.endswith("num_batches_tracked") else None)
        if tensor is None:
            raise _NotRecognisedError(f"looks like a {architecture.label}, but {key} is missing")
        if tensor.shape != like.shape:
            seen, wanted = tuple(tensor.shape), tuple(like.shape)
            raise _NotRecognisedError(f"looks like a {architecture.label}, but {key} is {seen} instead of {wanted}")
        checked[key] = _plain(key, tensor, like.dtype)
    for key in state:
        if key not in expected:
            raise _NotRecognisedError(f"looks like a {architecture.label}, but has {key} besides")
    return checked


def _plain(key: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    plain = tensor.detach().to("cpu", dtype, copy=True).contiguous()
    if plain.is_floating_point() and not plain.isfinite().all():
        raise _NotRecognisedError(f"{key} holds NaN or infinite values, as after a training that diverged")
    return plain


def _summary(shapes: Mapping[str, tuple[int, ...]]) -> str:
    kind = " of an attention U-Net" if any(re.search(r"att|psi", key, re.IGNORECASE) for key in shapes) else ""
    first = ", ".join(f"{key} {shape}" for key, shape in list(shapes.items())[:3])
    return f"{len(shapes)} tensors{kind} in an unknown layout ({first}, …)"
