"""A bundle: weights and their card in one safetensors file, ``NAME.safetensors``.

It is one file, because people mail and copy it. The card is JSON in the metadata of the file. It holds a digest of the
weights, which is checked whenever they are loaded. Such a file cannot contain code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from wsi_ihc.config import first_problem
from wsi_ihc.errors import GeneratorError, OutputError
from wsi_ihc.generators.card import GeneratorCard
from wsi_ihc.generators.networks import build_network
from wsi_ihc.machine.atomic import write_atomically

SUFFIX = ".safetensors"
_CARD_KEY = "wsi_ihc_card"


@dataclass(frozen=True)
class Bundle:
    """A generator before it is built: its card, and its weights by state-dict key."""

    card: GeneratorCard
    state: Mapping[str, Tensor]

    def build(self) -> nn.Module:
        """The network in eval mode, float32, with its norm layers as trained.

        Raises:
            GeneratorError: if the weights do not fit the card's architecture.
        """
        # Checked first without memory: a card may claim a network larger than the memory of the machine.
        with torch.device("meta"):
            expected = build_network(self.card.architecture).state_dict()
        if misfit := _first_misfit(expected, self.state):
            raise GeneratorError(f"bundle {self.card.name}: weights do not fit its architecture ({misfit})")
        network = build_network(self.card.architecture)
        network.load_state_dict(dict(self.state))
        return network.eval().requires_grad_(False)


def _first_misfit(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str | None:
    """The first weight that is missing, has another shape, or does not belong to the network."""
    for name in [*expected, *state]:
        if name not in state:
            return f"{name} is missing"
        if name not in expected:
            return f"{name} is one too many"
        if expected[name].shape != state[name].shape:
            return f"{name} is {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
    return None


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values of the weights, sorted by name; metadata do not count."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        # As bytes, because NumPy has no bfloat16.
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def program() -> str:
    """Name and version, as cards and files state them."""
    return f"wsi-ihc {version('wsi-ihc')}"


def save_bundle(
    path: str | Path, card: GeneratorCard, state: Mapping[str, Tensor], *, overwrite: bool = False
) -> Bundle:
    """Writes a bundle: the file is complete or absent. Returns the bundle that was written.

    The card's ``sha256`` and ``created_by`` are filled in.

    Raises:
        OutputError: ``path`` exists and may not be overwritten.
        StorageError: the disk refuses.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists already; choose another name or pass --overwrite")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    card = card.model_copy(update={"sha256": weights_sha256(plain), "created_by": program()})
    write_atomically(path, save(plain, metadata={_CARD_KEY: card.model_dump_json()}))
    return Bundle(card, plain)


def load_bundle(path: str | Path) -> Bundle:
    """Reads a bundle and compares its weights with the digest in its card.

    Raises:
        GeneratorError: the file is no bundle or damaged, or its weights were changed.
    """
    path = Path(path)
    card = read_card(path)
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, OSError) as error:
        raise GeneratorError(f"{path}: damaged bundle ({' '.join(str(error).split())})") from None
    if weights_sha256(state) != card.sha256:
        raise GeneratorError(f"{path}: the weights do not match the card's SHA-256: damaged or altered; get it again")
    return Bundle(card, state)


def read_card(path: Path) -> GeneratorCard:
    """Reads only the card, not the weights.

    Raises:
        GeneratorError: the file is no bundle.
    """
    if not path.is_file():
        raise GeneratorError(f"{path}: no such bundle")
    if path.suffix in (".pth", ".pt", ".ckpt"):
        raise GeneratorError(f"{path}: a torch checkpoint, not a bundle; turn it into one with: wsi-ihc weights import")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise GeneratorError(f"{path}: not a bundle, or damaged ({' '.join(str(error).split())})") from None
    if _CARD_KEY not in metadata:
        raise GeneratorError(f"{path}: weights without a card; turn them into a bundle with: wsi-ihc weights import")
    try:
        return GeneratorCard.model_validate_json(metadata[_CARD_KEY])
    except ValidationError as error:
        raise GeneratorError(f"{path}: the card's {first_problem(error)}") from None
