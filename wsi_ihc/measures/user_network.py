"""Networks that the user brings as a file. None is shipped or downloaded."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from wsi_ihc.errors import SettingsError


def load_network(path: Path) -> Callable[..., Any]:
    """The network of a TorchScript (.pt) or torch.export (.pt2) file, on the CPU.

    Such a file is a program: it is loaded because the user names it, never found by search.

    Raises:
        SettingsError: the file holds no such network.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if path.suffix == ".pt2":
                exported: Callable[..., Any] = torch.export.load(path).module()
                return exported
            script = torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except Exception as error:
        raise SettingsError(
            f"{path}: not a TorchScript or torch.export file ({type(error).__name__}); save it with torch.jit.save"
        ) from None
    # The widely used inception-2015-12-05.pt returns class probabilities unless asked for its features.
    wants = "return_features" in str(script.forward.schema)
    return (lambda batch: script(batch, return_features=True)) if wants else script
