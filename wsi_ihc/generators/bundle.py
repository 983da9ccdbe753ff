"""A bundle: weights and their card in one safetensors file, ``NAME.safetensors``.

One file, because it is mailed and copied. The card is JSON in the file's metadata; it carries a digest of the
weights, which is checked whenever they are loaded. Nothing in such a file can run code.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from wsi_ihc.errors import GeneratorError, OutputError, StorageError
from wsi_ihc.generators.builtin import Identity, Recolour
from wsi_ihc.generators.card import GeneratorCard
from wsi_ihc.generators.networks import Architecture, build_network

SUFFIX = ".safetensors"
_CARD_KEY = "wsi_ihc_card"


@dataclass(frozen=True)
class Bundle:
    """A generator before it is built: what it is, and its weights by state-dict key."""

    card: GeneratorCard
    state: Mapping[str, Tensor]

    def build(self) -> nn.Module:
        """The network in eval mode, float32, its norm layers as they were trained.

        Raises:
            GeneratorError: if the weights do not fit the card's architecture.
        """
        network = build_network(self.card.architecture)
        try:
            network.load_state_dict(dict(self.state))
        except RuntimeError as error:
            first = " ".join(str(error).split())[:160]
            raise GeneratorError(f"bundle {self.card.name}: weights do not fit its architecture ({first})") from None
        return network.eval().requires_grad_(False)


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Digest of names, types, shapes and values in the order of the names; the file around them does not count."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def save_bundle(
    path: str | Path, card: GeneratorCard, state: Mapping[str, Tensor], *, overwrite: bool = False
) -> Bundle:
    """Write a bundle in one step: under its name there is never half a file. Gives back what was written.

    The card's ``sha256`` and ``created_by`` are filled in.

    Raises:
        OutputError: if ``path`` exists and may not be overwritten.
        StorageError: if the disk refuses.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists already; choose another name or pass --overwrite")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    complete = {"sha256": weights_sha256(plain), "created_by": f"wsi-ihc {version('wsi-ihc')}"}
    card = card.model_copy(update=complete)
    _write_atomically(path, save(plain, metadata={_CARD_KEY: card.model_dump_json()}))
    return Bundle(card, plain)


def load_bundle(path: str | Path) -> Bundle:
    """Read a bundle and check its weights against the digest in its card.

    Raises:
        GeneratorError: for a file that is no bundle, is damaged, or whose weights were changed.
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
    """The card alone, without reading the weights.

    Raises:
        GeneratorError: for a file that is no bundle.
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
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise GeneratorError(f"{path}: the card's {field or 'text'} cannot be used: {first['msg']}") from None


def load_generator(name: str) -> Bundle:
    """A built-in, an installed bundle by name, or a bundle by path.

    Raises:
        GeneratorError: if there is none, or it cannot be used.
    """
    if name in BUILT_IN:
        return _built_in(name)
    if os.sep in name or "/" in name or name.endswith((SUFFIX, ".pth", ".pt", ".ckpt")):
        return load_bundle(name)
    installed = installed_bundles()
    if name not in installed:
        known = ", ".join([*BUILT_IN, *installed])
        raise GeneratorError(f"generator {name}: not found; known are {known}, or give the path of a bundle")
    return load_bundle(installed[name])


def installed_bundles() -> dict[str, Path]:
    """Path of every installed bundle by name; the user's own hide those that came with the package."""
    folders = [Path(__file__).parent / "bundles", user_bundle_folder()]
    return {path.stem: path for folder in folders for path in sorted(folder.glob(f"*{SUFFIX}"))}


def user_bundle_folder() -> Path:
    """Where ``weights import`` puts bundles: under ``WSI_IHC_HOME``, else the user's data folder (XDG)."""
    if home := os.environ.get("WSI_IHC_HOME"):
        return Path(home) / "bundles"
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "wsi-ihc" / "bundles"


BUILT_IN = ("recolour", "identity")


def _built_in(name: str) -> Bundle:
    match name:
        case "recolour":
            state: Mapping[str, Tensor] = Recolour().state_dict()
            architecture = Architecture(kind="recolour")
            stain, description = (
                "H-DAB (recoloured)",
                "Stain deconvolution of H&E painted as a weak H-DAB; nothing learnt.",
            )
        case _:
            state = Identity().state_dict()
            architecture = Architecture(kind="identity")
            stain, description = "none", "Gives back its input; for tests and for measuring everything else."
    card = GeneratorCard(
        name=name,
        architecture=architecture,
        stain=stain,
        training_data="none",
        licence="Apache-2.0",
        description=description,
        sha256=weights_sha256(state),
        created_by=f"wsi-ihc {version('wsi-ihc')}",
    )
    return Bundle(card, state)


def _write_atomically(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            part = Path(file.name)
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                part.chmod(0o644)
                part.replace(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error})") from None
