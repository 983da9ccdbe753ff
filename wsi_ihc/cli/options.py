"""Options that several commands share, and their way into the settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from wsi_ihc.config import ConversionSettings, Precision, load_settings

_Command = TypeVar("_Command", bound=Callable[..., Any])


class _SlidePath(click.Path):
    """The path of a slide. An address would lose a slash as a path, and be reported as a missing file."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if "://" in str(value):
            self.fail(f"{value}: an address; slides are read from files only, copy this one here first", param, ctx)
        return super().convert(value, param, ctx)


SLIDE = _SlidePath(path_type=Path)
OUTPUT = click.Path(path_type=Path, dir_okay=False)

# The name of each option is the key of its setting, with a double underscore for the dot.
_CONVERSION_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "generator__name": (
        "--generator",
        {"metavar": "NAME|FILE", "help": "Name of a generator (see weights list), or a bundle file."},
    ),
    "slide__mpp": (
        "--mpp",
        {"type": float, "metavar": "UM", "help": "Pixel size of level 0, if the file states none or a wrong one."},
    ),
    "slide__scene": ("--scene", {"type": int, "metavar": "N", "help": "Image of a file with several, from 1."}),
    "slide__plane": ("--plane", {"type": int, "metavar": "N", "help": "Plane of a focal stack, from 1."}),
    "tissue__source": (
        "--tissue",
        {
            "metavar": "auto|none|FILE.geojson",
            "help": "Find the tissue, stain the whole slide, or take outlines from QuPath.",
        },
    ),
    "compute__device": ("--device", {"metavar": "auto|cpu|cuda[:i]", "help": "Device that runs the generator."}),
    "compute__precision": (
        "--precision",
        {"type": click.Choice(get_args(Precision)), "help": "Number format of the generator's arithmetic."},
    ),
    "compute__backend": (
        "--backend",
        {"type": click.Choice(["auto", "torch", "openvino"]), "help": "Library that runs the generator."},
    ),
    "compute__memory": (
        "--memory",
        {"metavar": "SIZE", "help": "Memory limit, e.g. 4GB: of the process on a CPU, of the device on a GPU."},
    ),
    "generator__normalisation": (
        "--normalisation",
        {
            "type": click.Choice(["auto", "running", "calibrated", "tile"]),
            "help": "Statistics that the norm layers use.",
        },
    ),
    "compute__batch_size": (
        "--batch-size",
        {"metavar": "auto|N", "help": "Blocks that pass through the generator together."},
    ),
    "output__compression": (
        "--compression",
        {
            "type": click.Choice(["jpeg", "deflate"]),
            "help": "Compression of the tiles; deflate is lossless and about six times larger.",
        },
    ),
    "output__quality": ("--quality", {"type": int, "metavar": "1..100", "help": "JPEG quality; 85 by default."}),
    "slide__reader": (
        "--reader",
        {"type": click.Choice(["auto", "openslide", "tiffslide"]), "help": "Library that reads the slide."},
    ),
    "checks__strict": (
        "--strict",
        {"is_flag": True, "default": None, "help": "Refuse a slide whose output would carry a warning."},
    ),
    "checks__any_stain": (
        "--any-stain",
        {"is_flag": True, "default": None, "help": "Convert other stains than H&E too, with a warning."},
    ),
}

_SETTINGS_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "config": (
        "--config",
        {
            "type": click.Path(path_type=Path, dir_okay=False),
            "metavar": "FILE",
            "help": "YAML file with the settings that differ from the defaults.",
        },
    ),
    "assignments": (
        "--set",
        {"multiple": True, "metavar": "KEY=VALUE", "help": "Any setting, e.g. tiling.core_px=2048. Repeatable."},
    ),
}


def conversion_options(command: _Command) -> _Command:
    """Adds every option of a conversion. Their values reach the command as ``**values``."""
    return _with_options(settings_options(command), _CONVERSION_OPTIONS)


def some_conversion_options(*names: str) -> Callable[[_Command], _Command]:
    """Adds only the options of a conversion that ``names`` list, for example ``slide__mpp``."""
    return lambda command: _with_options(command, {name: _CONVERSION_OPTIONS[name] for name in names})


def settings_options(command: _Command) -> _Command:
    """Adds ``--config`` and ``--set``."""
    return _with_options(command, _SETTINGS_OPTIONS)


def _with_options(command: _Command, options: dict[str, tuple[str, dict[str, Any]]]) -> _Command:
    for name, (flag, details) in reversed(options.items()):
        command = click.option(flag, name, **details)(command)
    return command


def conversion_settings(values: dict[str, Any]) -> ConversionSettings:
    """Settings from the values of :func:`conversion_options`. An option that was not given keeps its default.

    Raises:
        SettingsError: the message names the key, the given value and the expected one.
    """
    config, assignments = values.pop("config", None), values.pop("assignments", ())
    given = {key.replace("__", "."): _number_or_text(value) for key, value in values.items() if value is not None}
    return load_settings(ConversionSettings, config, given, assignments)


def _number_or_text(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdigit() else value
