"""The generators of this machine by name: built in, bundled with the package, or installed by the user."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsi_ihc.errors import GeneratorError
from wsi_ihc.generators.bundle import SUFFIX, Bundle, load_bundle, program, read_card, save_bundle, weights_sha256
from wsi_ihc.generators.card import GeneratorCard, make_card
from wsi_ihc.generators.checkpoint import read_pix2pix_checkpoint
from wsi_ihc.generators.networks import Architecture, build_network

BUILT_IN: Mapping[str, Mapping[str, str]] = {
    "recolour": {
        "stain": "H-DAB, recoloured",
        "description": "H&E unmixed by optical density, painted as a weak H-DAB; shows no antigen. "
        "The baseline to beat.",
    },
    "identity": {
        "stain": "none (H&E as it is)",
        "counterstain": "none",
        "description": "Gives back its input; for tests, and to time everything but the network.",
    },
}
"""Fields of the cards of built-in generators, which learn nothing."""


def load_generator(name: str) -> Bundle:
    """Loads a built-in generator, an installed bundle by name, or a bundle by path.

    Raises:
        GeneratorError: there is none, or it cannot be used.
    """
    return _built_in(name) if name in BUILT_IN else load_bundle(_found(name))


def load_card(name: str) -> GeneratorCard:
    """The card of the generator that ``load_generator`` loads; the weights are not read.

    Raises:
        GeneratorError: there is none, or it is no bundle.
    """
    return _built_in(name).card if name in BUILT_IN else read_card(_found(name))


def list_generators() -> tuple[list[GeneratorCard], list[str]]:
    """The cards of all generators that have a name here, and one line for each file that is no bundle."""
    cards = [load_card(name) for name in BUILT_IN]
    notices = []
    for name, path in installed_bundles().items():
        try:
            cards.append(read_card(path).model_copy(update={"name": name}))
        except GeneratorError as error:
            notices.append(str(error))
    return cards, notices


def installed_bundles() -> dict[str, Path]:
    """Path of every installed bundle by name; a user's bundle hides one of the same name from the package."""
    folders = [Path(__file__).parent / "bundles", user_bundle_folder()]
    return {path.stem: path for folder in folders for path in sorted(folder.glob(f"[!.]*{SUFFIX}"))}


def removable_bundle(name: str) -> Path:
    """Path of the bundle that this user installed under ``name``.

    Raises:
        GeneratorError: there is none, or the generator came with the package.
    """
    path = user_bundle_folder() / f"{name}{SUFFIX}"
    if not _is_path(name) and path.is_file():
        return path
    if name in BUILT_IN or name in installed_bundles():
        raise GeneratorError(f"{name}: came with wsi-ihc and cannot be removed; only generators that you installed can")
    own = ", ".join(sorted(path.stem for path in user_bundle_folder().glob(f"[!.]*{SUFFIX}"))) or "none"
    raise GeneratorError(f"{name}: no generator of this name is installed; you installed: {own}")


def user_bundle_folder() -> Path:
    """Folder of a user's bundles: under ``WSI_IHC_HOME``, else in the user's data folder (XDG)."""
    if home := os.environ.get("WSI_IHC_HOME"):
        return Path(home) / "bundles"
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "wsi-ihc" / "bundles"


def bundle_path(output: str) -> Path:
    """Path of the bundle ``output``: a name is installed for this user, a path (with a folder or suffix) stays a path.

    Raises:
        GeneratorError: the name is that of a built-in generator.
    """
    if output in BUILT_IN:
        raise GeneratorError(f"{output}: the name of a built-in generator; choose another")
    if not _is_path(output):
        return user_bundle_folder() / f"{output}{SUFFIX}"
    path = Path(output)
    return path if path.suffix == SUFFIX else path.with_name(path.name + SUFFIX)


def generator_name(path: Path) -> str:
    """The bundle at ``path`` as ``--generator`` takes it: its name where it is installed, else the path."""
    return path.stem if path.parent == user_bundle_folder() else str(path)


def import_checkpoint(
    file: str | Path,
    output: str,
    *,
    part: str | None = None,
    name: str | None = None,
    overwrite: bool = False,
    **facts: Any,
) -> tuple[Path, GeneratorCard]:
    """Converts a pix2pix-family checkpoint to a bundle at ``bundle_path(output)``; returns its path and card.

    Args:
        file: a checkpoint that ``read_pix2pix_checkpoint`` can read.
        output: name or path of the bundle.
        part: name of the generator, where the file holds several.
        name: name on the card; by default that of the bundle.
        overwrite: whether to replace an existing bundle.
        facts: further fields of the card; at least ``mpp`` and ``stain``, which no checkpoint states.

    Raises:
        GeneratorError: the checkpoint or a fact cannot be used.
        OutputError, StorageError: as in ``save_bundle``.
    """
    file, path = Path(file), bundle_path(output)
    architecture, state = read_pix2pix_checkpoint(file, part)
    chosen = f", {part}" if part else ""
    source = f"{file.name}{chosen} (sha256 {hashlib.sha256(file.read_bytes()).hexdigest()})"
    card = make_card(name=name or path.stem, architecture=architecture, sources=(source,), **facts)
    return path, save_bundle(path, card, state, overwrite=overwrite).card


def _found(name: str) -> Path:
    if _is_path(name):
        path = Path(name)
        beside = path.with_name(f"{path.name}{SUFFIX}")
        # The text that wrote a bundle also finds it: the suffix may be left out.
        return beside if beside.is_file() and not path.is_file() else path
    installed = installed_bundles()
    if name not in installed:
        known = ", ".join([*BUILT_IN, *installed])
        raise GeneratorError(f"generator {name}: not found; known are {known}, or give the path of a bundle")
    return installed[name]


def _is_path(name: str) -> bool:
    return "/" in name or os.sep in name or name.endswith((SUFFIX, ".pth", ".pt", ".ckpt"))


def _built_in(name: str) -> Bundle:
    architecture = Architecture.model_validate({"kind": name})
    state = build_network(architecture).state_dict()
    card = make_card(
        name=name,
        architecture=architecture,
        training_data="none",
        evidence="nothing learnt",
        licence="Apache-2.0",
        sha256=weights_sha256(state),
        created_by=program(),
        **BUILT_IN[name],
    )
    return Bundle(card, state)
