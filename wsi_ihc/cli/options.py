"""Options that several commands share, and how they become settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from wsi_ihc.config import ConversionSettings, Precision, load_settings

_Command = TypeVar("_Command", bound=Callable[..., Any])

SLIDE = click.Path(path_type=Path)
OUTPUT = click.Path(path_type=Path, dir_okay=False)

# The name of each is the setting's own key, a double underscore for the dot.
_CONVERSION_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "generator__name": ("--generator", {"metavar": "NAME|FILE", "help": "A built-in or installed one, or a bundle."}),
    "slide__mpp": (
        "--mpp",
        {"type": float, "metavar": "UM", "help": "Pixel size of level 0, where the file has none or a wrong one."},
    ),
    "tissue__source": (
        "--tissue",
        {"metavar": "auto|none|FILE.geojson", "help": "Where the tissue is: found, everywhere, or as drawn in QuPath."},
    ),
    "compute__device": ("--device", {"metavar": "auto|cpu|cuda[:i]", "help": "Where the generator runs."}),
    "compute__precision": (
        "--precision",
        {"type": click.Choice(get_args(Precision)), "help": "Arithmetic of the generator."},
    ),
    "compute__backend": (
        "--backend",
        {"type": click.Choice(["auto", "torch", "openvino"]), "help": "Library that runs the generator."},
    ),
    "compute__memory": ("--memory", {"metavar": "SIZE", "help": "For process (CPU) or device (GPU), such as 4GB."}),
    "generator__normalisation": (
        "--normalisation",
        {"type": click.Choice(["auto", "running", "calibrated", "tile"]), "help": "How norm layers are fixed."},
    ),
    "compute__batch_size": ("--batch-size", {"metavar": "auto|N", "help": "Blocks in one pass of the generator."}),
    "output__compression": (
        "--compression",
        {"type": click.Choice(["jpeg", "deflate"]), "help": "deflate is without loss, and large."},
    ),
    "output__quality": ("--quality", {"type": int, "metavar": "1..100", "help": "JPEG quality; 85 by default."}),
    "slide__reader": (
        "--reader",
        {"type": click.Choice(["auto", "openslide", "tiffslide"]), "help": "Library that reads the slide."},
    ),
}

_SETTINGS_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "config": (
        "--config",
        {"type": click.Path(path_type=Path, dir_okay=False), "metavar": "FILE", "help": "YAML with what differs."},
    ),
    "assignments": ("--set", {"multiple": True, "metavar": "KEY=VALUE", "help": "Any setting: tiling.core_px=2048."}),
}


def conversion_options(command: _Command) -> _Command:
    """Every option of a conversion; the values reach the command as ``**values`` for :func:`conversion_settings`."""
    return _with_options(settings_options(command), _CONVERSION_OPTIONS)


def some_conversion_options(*names: str) -> Callable[[_Command], _Command]:
    """Those of a conversion's options that ``names`` (``slide__mpp``) list, for a command that needs no others."""
    return lambda command: _with_options(command, {name: _CONVERSION_OPTIONS[name] for name in names})


def settings_options(command: _Command) -> _Command:
    """``--config`` and ``--set``, for commands whose settings live in sections."""
    return _with_options(command, _SETTINGS_OPTIONS)


def _with_options(command: _Command, options: dict[str, tuple[str, dict[str, Any]]]) -> _Command:
    for name, (flag, details) in reversed(options.items()):
        command = click.option(flag, name, **details)(command)
    return command


def conversion_settings(values: dict[str, Any]) -> ConversionSettings:
    """Settings from the options of :func:`conversion_options`; what was not given keeps its default.

    Raises:
        SettingsError: naming the option or the key, what was given and what was expected.
    """
    config, assignments = values.pop("config", None), values.pop("assignments", ())
    given = {key.replace("__", "."): _number_or_text(value) for key, value in values.items() if value is not None}
    return load_settings(ConversionSettings, config, given, assignments)


def _number_or_text(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdigit() else value
