"""Writes docs/cli.md, docs/settings.md and docs/training_settings.md from the code, so that they are always true.

python scripts/write_cli_reference.py [--check]
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from wsi_ihc.cli import cli

HEADER = """# The command line

Made from the commands themselves by `python scripts/write_cli_reference.py`; `wsi-ihc COMMAND --help` says the same.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | an internal error (`WSI_IHC_DEBUG=1` shows the traceback); `doctor` found a fault; `batch`: slides failed |
| 2 | an option or a setting that is wrong, or that does not go with another |
| 3 | the slide: unreadable, unsupported, or its pixel size is missing or too coarse |
| 4 | the generator: no usable weights or bundle |
| 5 | the disk: full, read-only, gone; what was stored is kept |
| 6 | the output: exists, is being written by another run, or failed verification |
| 7 | the device: missing, or out of memory |
| 8 | the data set of a training or an evaluation |
| 9 | the training diverged; its last good checkpoint is kept |
| 10 | the dask cluster of `--scheduler`: no scheduler, no workers, or lost; what was stained is kept |
| 11 | `batch`: every slide is done, but something that could be a slide was left out |
| 70 | a library crashed, or the process was killed from outside |
| 130 | interrupted; the same command continues |

Every setting has a key, `section.name`, for `--set` and for the YAML file of `--config`:
[settings of a conversion](settings.md), [settings of a training](training_settings.md).
"""

SETTINGS_HEADER = """# {title}

Made from `{module}` by `python scripts/write_cli_reference.py`.
Give a setting by its key: `--set KEY=VALUE`, or in the YAML file, where the parts of the key are nested.

| key | default | meaning |
|---|---|---|"""

NAMED = "NAME"
"""Stands in a key for the name that the user gives to a section."""


def reference() -> str:
    """The whole page."""
    return "\n".join([HEADER, *_pages(cli, click.Context(cli, info_name="wsi-ihc", **cli.context_settings))])


def _pages(command: click.Command, context: click.Context) -> Iterator[str]:
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from _pages(child, click.Context(child, info_name=name, parent=context))
        return
    yield f"## {context.command_path}\n\n```\n{command.get_help(context)}\n```\n"


def conversion_settings() -> str:
    """A table of every setting of a conversion: key, default, meaning."""
    from wsi_ihc.config import ConversionSettings

    return _settings_page("Settings of a conversion", "wsi_ihc/config.py", ConversionSettings)


def training_settings() -> str:
    """A table of every setting of a training: key, default, meaning."""
    from wsi_ihc.training.config import TrainingSettings

    return _settings_page("Settings of a training", "wsi_ihc/training/config.py", TrainingSettings)


def _settings_page(title: str, module: str, model: type[BaseModel]) -> str:
    return "\n".join([SETTINGS_HEADER.format(title=title, module=module), *_rows(model, ""), ""])


def _rows(model: type[BaseModel], prefix: str) -> Iterator[str]:
    meanings = field_docstrings(model)
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        key = f"{prefix}{name}"
        if isinstance(default, BaseModel):
            yield from _rows(type(default), f"{key}.")
        elif isinstance(default, dict):
            yield from _rows(type(next(iter(default.values()))), f"{key}.{NAMED}.")
        else:
            meaning = meanings.get(name, "").replace("``", "`").replace("|", "\\|")
            yield f"| `{key}` | {_shown(default, field)} | {meaning} |"


def field_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The string under each field of ``model``, on one line.

    Read from the source here, not by pydantic: that would cost every start of the program a tenth of a second.
    """
    (definition,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for field, below in pairwise(definition.body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split())
    return found


def _shown(default: object, field: FieldInfo) -> str:
    """A default as YAML writes it; a dash where there is none, or none that is needed."""
    if field.is_required() or default is None or default == "":
        return "–"
    return f"`{json.dumps(default, ensure_ascii=False)}`".replace('`"', "`").replace('"`', "`")


def main() -> int:
    """Writes the pages; with ``--check`` only says whether they are up to date."""
    docs = Path(__file__).parents[1] / "docs"
    pages = {
        docs / "cli.md": reference(),
        docs / "settings.md": conversion_settings(),
        docs / "training_settings.md": training_settings(),
    }
    if "--check" in sys.argv[1:]:
        return int(any(page.read_text(encoding="utf-8") != text for page, text in pages.items()))
    for page, text in pages.items():
        page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
