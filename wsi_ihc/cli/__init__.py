"""The command line: one module per command, imported only when its command is called."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from wsi_ihc import __version__
from wsi_ihc.cli.supervision import Advice, run_supervised
from wsi_ihc.cli.terminal import complain, flush_streams, prepare_streams
from wsi_ihc.errors import DeviceError, StorageError, WsiIhcError, one_line

COMMANDS = {
    "convert": "Stain a whole slide: H&E in, virtual IHC pyramid out.",
    "batch": "Stain many slides, each in a process of its own; continues where it was.",
    "status": "Where a batch stands: done, running, failed and why, waiting.",
    "view": "Show a slide beside its virtual stain in a browser.",
    "info": "What a slide is, and how convert would read it.",
    "tissue": "Find the tissue of a slide; write the mask as GeoJSON or PNG.",
    "verify": "Check an output: levels, scale, tiles, provenance.",
    "weights": "List, show and import generators.",
    "phantom": "Draw a digital tissue phantom, H&E and HER2 IHC.",
    "train": "Train a generator.",
    "evaluate": "Judge a generator, or any images, against real IHC.",
    "doctor": "Versions, device, codecs, readers, disk: one screen.",
}

INTERRUPTED = 130

_SUPERVISED = {
    "convert": Advice(
        "check the file, or try another --reader or --backend torch", "run the same command again, it continues"
    ),
    "info": Advice("check the file, or try another --reader"),
    "tissue": Advice("check the file, or try another --reader"),
    "verify": Advice(),
    "view": Advice("check the file, or try another --reader", "run the same command again"),
    "train": Advice("check the images with --check-only, and go on with --resume", "go on with --resume"),
    "evaluate": Advice("check the images, or try another --device or --precision"),
}
"""A damaged file or an engine could crash the interpreter: these run in a child process."""


class _LazyGroup(click.Group):
    """Knows its commands by name; imports a command's module when it is used, so that help is instant."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"wsi_ihc.cli.{name}"), name)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, package_name="wsi-ihc")
def cli() -> None:
    """H&E whole-slide images in, virtual HER2 IHC slides out. Research use only.

    \b
    wsi-ihc convert slide.svs -o slide_ihc.ome.tiff

    Exit codes: 0 done, 1 unexpected, 2 options, 3 slide, 4 generator, 5 disk, 6 output, 7 device, 8 training data,
    9 training diverged, 10 dask cluster, 70 a library's own code crashed, 130 interrupted.
    """


def main(arguments: list[str] | None = None) -> None:
    """Entry point: runs the command, and turns everything expected into one line and an exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    advice = _SUPERVISED.get(arguments[0]) if arguments else None
    sys.exit(run_supervised(arguments, _run, advice) if advice else _run(arguments))


def _run(arguments: list[str]) -> int:
    prepare_streams()
    try:
        return _command(arguments)
    finally:
        flush_streams()


def _command(arguments: list[str]) -> int:
    try:
        result: Any = cli.main(arguments, prog_name="wsi-ihc", standalone_mode=False)
    except click.ClickException as error:
        _show(error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        kept = "; what was finished is kept, run the same command again to continue"
        complain(f"interrupted{kept if _is_conversion(arguments) else ''}")
        return INTERRUPTED
    except WsiIhcError as error:
        complain(error)
        return error.exit_code
    except MemoryError:
        smaller = "; try --batch-size 1 or --set tiling.core_px=512" if _is_conversion(arguments) else ""
        complain(f"out of memory{smaller}")
        return DeviceError.exit_code
    except BrokenPipeError:
        return 0
    except OSError as error:
        if os.environ.get("WSI_IHC_DEBUG"):
            raise
        where = f"{error.filename}: " if error.filename else ""
        complain(f"{where}{error.strerror or one_line(error)}; check path, permissions and disk")
        return StorageError.exit_code
    except Exception as error:
        if os.environ.get("WSI_IHC_DEBUG"):
            raise
        seen = f"{type(error).__name__}: {one_line(error)}"
        complain(f"internal error: {seen} (WSI_IHC_DEBUG=1 shows where; please report it)")
        return 1
    return result if isinstance(result, int) else 0


def _is_conversion(arguments: list[str]) -> bool:
    return arguments[:1] in (["convert"], ["batch"])


def _show(error: click.ClickException) -> None:
    """A mistake in the words of the command, on one line; only the help that bare commands ask for is longer."""
    said = error.format_message()
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return
    context = error.ctx if isinstance(error, click.UsageError) else None
    where = f" (see {context.command_path} --help)" if context else ""
    complain(f"{said.rstrip('.')}{where}")
