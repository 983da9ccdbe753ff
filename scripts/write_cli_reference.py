"""Writes docs/cli.md and docs/settings.md from the code itself, so that they are never wrong.

python scripts/write_cli_reference.py [--check]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from wsi_ihc.cli import cli

HEADER = """# The command line

Made from the commands themselves by `python scripts/write_cli_reference.py`; `wsi-ihc COMMAND --help` says the same.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | a fault of ours (`WSI_IHC_DEBUG=1` shows where), `doctor` or `batch` did not find or stain everything |
| 2 | an option, a configuration file, or a combination that cannot be |
| 3 | the slide: unreadable, unsupported, or its pixel size is missing or too coarse |
| 4 | the generator: no usable weights or bundle |
| 5 | the disk: full, read-only, gone; what was stored is kept |
| 6 | the output: exists, is being written by another run, or failed verification |
| 7 | the device: missing, or out of memory |
| 8 | training or evaluation data |
| 9 | a training that diverged; its last good checkpoint is kept |
| 10 | the dask cluster of `--scheduler`: no scheduler, no workers, or lost; what was stained is kept |
| 70 | a library's own code crashed, or the process was killed from outside |
| 130 | interrupted; the same command continues |

Every setting has a name, `section.key`, for `--set` and for the YAML of `--config`: [settings.md](settings.md).
"""

SETTINGS_HEADER = """# Settings of a conversion

Made from `wsi_ihc/config.py` by `python scripts/write_cli_reference.py`.

| key | default | what it is, and why |
|---|---|---|"""


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


def settings_reference() -> str:
    """A table of every setting of a conversion: key, default, why."""
    from wsi_ihc.config import ConversionSettings

    lines = [SETTINGS_HEADER]
    for section, holder in ConversionSettings.model_fields.items():
        for key, field in type(holder.default).model_fields.items():
            text = " ".join((field.description or "").split())
            lines.append(f"| `{section}.{key}` | `{field.default}` | {text} |")
    return "\n".join([*lines, ""])


def main() -> int:
    """Writes both pages; with ``--check`` only says whether they are up to date."""
    docs = Path(__file__).parents[1] / "docs"
    pages = {docs / "cli.md": reference(), docs / "settings.md": settings_reference()}
    if "--check" in sys.argv[1:]:
        return int(any(page.read_text(encoding="utf-8") != text for page, text in pages.items()))
    for page, text in pages.items():
        page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
