"""Imports weights of other programs: checkpoints of the pix2pix family, recognised by their keys and shapes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from wsi_ihc.errors import GeneratorError
from wsi_ihc.generators.checkpoint_file import read_tensors
from wsi_ihc.generators.key_layout import FIRST_LAYERS, NotRecognisedError, Shapes, State, infer_architecture
from wsi_ihc.generators.networks import Architecture, build_network

_DEPTH = 5
_TOP = "(top)"


def read_pix2pix_checkpoint(path: str | Path, part: str | None = None) -> tuple[Architecture, State]:
    """The generator in a ``.pth`` (or ``.safetensors``) file of the pix2pix family, float32.

    Wrappers (DataParallel, Lightning, torch.compile, averaged weights) and other content of the file do not matter. The
    architecture is read from keys and shapes, and then every tensor is checked against it. The keys of a U-Net do not
    show whether it was trained with dropout; dropout is assumed, the default of the family.

    Args:
        path: the file.
        part: name of the generator, where the file holds several; the error lists the names.

    Raises:
        GeneratorError: the file is no such checkpoint, or holds several generators and ``part`` names none of them.
    """
    path = Path(path)
    content = read_tensors(path)
    candidates = dict(_candidates(content))
    chosen = _chosen(path, candidates, part)
    if chosen is None:
        first = next(iter(_tensor_dicts(content)), None)
        seen = _summary(_shapes(first[1])) if first else "holds no tensors"
        raise GeneratorError(f"{path}: {seen}; expected a resnet or U-Net of the pix2pix family")
    try:
        architecture, state = infer_architecture(chosen)
        return architecture, _checked(state, architecture)
    except NotRecognisedError as error:
        raise GeneratorError(f"{path}: {error}; expected a resnet or U-Net of the pix2pix family") from None


def _chosen(path: Path, candidates: Mapping[str, State], part: str | None) -> State | None:
    """The only generator of the file, or the one that ``part`` names; None where there is none.

    Raises:
        GeneratorError: there are several, and ``part`` names none of them.
    """
    distinct: dict[str, State] = {}
    for name, state in candidates.items():
        if name == part:
            return state
        if not any(_same(state, other) for other in distinct.values()):
            distinct[name] = state
    if part is not None or len(distinct) > 1:
        names = ", ".join(candidates) or "none"
        wish = f"no generator {part} in it" if part is not None else f"{len(candidates)} generators in one file"
        raise GeneratorError(f"{path}: {wish}; choose with --part, the file has: {names}")
    return next(iter(distinct.values()), None)


def _same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def _candidates(content: object) -> Iterator[tuple[str, State]]:
    """Every generator in ``content`` by a readable name: its tensors, and the prefix of its keys."""
    for place, tensors in _tensor_dicts(content):
        for key, weight in tensors.items():
            wrapper = _wrapper(key, weight)
            if wrapper is None:
                continue
            own = {name.removeprefix(wrapper): tensors[name] for name in tensors if name.startswith(f"{wrapper}model.")}
            yield "/".join([*place, *([wrapper.rstrip(".")] if wrapper else [])]) or _TOP, own


def _wrapper(key: str, weight: Tensor) -> str | None:
    """The prefix of ``key`` if it is the first convolution of a generator; None for any other key."""
    for first, side in FIRST_LAYERS.items():
        wrapper = key.removesuffix(first)
        if wrapper != key and wrapper[-1:] in ("", ".") and weight.ndim == 4 and weight.shape[1:] == (3, side, side):
            return wrapper
    return None


def _tensor_dicts(content: object, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], State]]:
    """Every dict of tensors in ``content`` with its place, outermost first, also inside ``{'state_dict': …}``."""
    if isinstance(content, Mapping) and len(place) < _DEPTH:
        tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        if tensors:
            yield place, tensors
        for key, value in content.items():
            yield from _tensor_dicts(value, (*place, str(key)))


def _shapes(state: State) -> Shapes:
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def _checked(state: State, architecture: Architecture) -> State:
    """Exactly the tensors that ``architecture`` needs, as contiguous float32 copies."""
    with torch.device("meta"):
        expected = build_network(architecture).state_dict()
    # Files written by torch before 0.4 hold running statistics of InstanceNorm that were never used.
    unused = re.compile(r"running_(mean|var)$|batches_tracked$" if architecture.norm == "instance" else r"(?!)")
    state = {key: value for key, value in state.items() if key in expected or not unused.search(key)}
    checked: State = {}
    for key, like in expected.items():
        tensor = state.get(key, torch.zeros((), dtype=torch.int64) if key.endswith("num_batches_tracked") else None)
        if tensor is None:
            raise NotRecognisedError(f"looks like a {architecture.label}, but {key} is missing")
        if tensor.shape != like.shape:
            seen, wanted = tuple(tensor.shape), tuple(like.shape)
            raise NotRecognisedError(f"looks like a {architecture.label}, but {key} is {seen} instead of {wanted}")
        checked[key] = _plain(key, tensor, like.dtype)
    for key in state:
        if key not in expected:
            raise NotRecognisedError(f"looks like a {architecture.label}, but has {key} besides")
    return checked


def _plain(key: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    plain = tensor.detach().to("cpu", dtype, copy=True).contiguous()
    if plain.is_floating_point() and not plain.isfinite().all():
        raise NotRecognisedError(f"{key} holds NaN or infinite values, as after a training that diverged")
    return plain


def _summary(shapes: Shapes) -> str:
    kind = " of an attention U-Net" if any(re.search(r"att|psi", key, re.IGNORECASE) for key in shapes) else ""
    first = ", ".join(f"{key} {shape}" for key, shape in list(shapes.items())[:3])
    return f"{len(shapes)} tensors{kind} in an unknown layout ({first}, …)"
