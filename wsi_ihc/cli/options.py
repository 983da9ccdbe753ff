"""Options that several commands share, and how they become settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from wsi_ihc.config import ConversionSettings, load_settings

_Command = TypeVar("_Command", bound=Callable[..., Any])

SLIDE = click.Path(path_type=Path)
OUTPUT = click.Path(path_type=Path, dir_okay=False)

# Parameter names are the settings' own keys, a double underscore for the dot.
_CONVERSION_OPTIONS = [
    click.option("--generator", "generator__name", metavar="NAME|FILE", help="A built-in or installed generator, or a bundle."),
    click.option("--mpp", "slide__mpp", type=float, metavar="UM", help="Pixel size of the slide's level 0, where the file has none or a wrong one."),
    click.option("--tissue", "tissue__source", metavar="auto|none|FILE.geojson", help="What is stained; none stains everything."),
    click.option("--device", "compute__device", metavar="auto|cpu|cuda[:i]", help="Where the generator runs."),
    click.option("--precision", "compute__precision", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), help="Arithmetic of the generator."),
    click.option("--normalisation", "generator__normalisation", type=click.Choice(["auto", "running", "calibrated", "tile"]), help="How norm layers are fixed before the first tile."),
    click.option("--batch-size", "compute__batch_size", metavar="auto|N", help="Blocks in one pass of the generator."),
    click.option("--compression", "output__compression", type=click.Choice(["jpeg", "deflate"]), help="deflate is without loss, and large."),
    click.option("--quality", "output__quality", type=int, metavar="1..100", help="JPEG quality; 85 by default."),
    click.option("--reader", "slide__reader", type=click.Choice(["auto", "openslide", "tiffslide"]), help="Library that reads the slide."),
]  # fmt: skip


def conversion_options(command: _Command) -> _Command:
    """Every option of a conversion; the values reach the command as ``**values`` for :func:`conversion_settings`."""
    for option in reversed(_CONVERSION_OPTIONS):
        command = option(command)
    return settings_options(command)


def settings_options(command: _Command) -> _Command:
    """``--config`` and ``--set``, for commands whose settings live in sections."""
    command = click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting, for example tiling.core_px=2048.")(command)  # fmt: skip
    return click.option("--config", "config", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="YAML with settings that differ from the defaults.")(command)  # fmt: skip


def conversion_settings(values: dict[str, Any]) -> ConversionSettings:
    """Settings from the options of :func:`conversion_options`; what was not given keeps its default."""
    config, assignments = values.pop("config"), values.pop("assignments")
    given = {key.replace("__", "."): _number_or_text(value) for key, value in values.items() if value is not None}
    return load_settings(ConversionSettings, config, given, assignments)


def _number_or_text(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdigit() else value
