"""The command line. Each command is a module of its own, imported only when the command is called."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from wsi_ihc import __version__
from wsi_ihc.cli.supervision import Advice, run_supervised
from wsi_ihc.cli.terminal import complain, flush_streams, log_to_terminal, prepare_streams
from wsi_ihc.errors import DeviceError, StorageError, WsiIhcError, one_line

COMMANDS = {
    "convert": "Stain one slide: H&E in, virtual IHC pyramid out.",
    "batch": "Stain many slides; the same command again continues.",
    "status": "Show the progress of a batch: done, running, failed, waiting.",
    "view": "Show a slide beside its virtual stain in a browser.",
    "report": "Write a page about an output: pictures, read-out, warnings.",
    "info": "Describe a slide, and how convert would read it.",
    "tissue": "Find the tissue of a slide; write it as GeoJSON or PNG.",
    "verify": "Check outputs: levels, scale, tiles, provenance.",
    "weights": "List, show, import, export and remove generators.",
    "phantom": "Draw a digital tissue phantom in H&E and HER2 IHC.",
    "train": "Train a generator from pairs of H&E and IHC.",
    "evaluate": "Compare generated images with real IHC.",
    "doctor": "Check this machine: versions, device, codecs, readers, disk.",
}

INTERRUPTED = 130

_SUPERVISED = {
    "convert": Advice(
        "check the file, or try another --reader or --backend torch", "run the same command again, it continues"
    ),
    "info": Advice("check the file, or try another --reader"),
    "tissue": Advice("check the file, or try another --reader"),
    "verify": Advice(),
    "report": Advice(),
    "view": Advice("check the file, or try another --reader", "run the same command again"),
    "train": Advice("check the images with --check-only, and go on with --resume", "go on with --resume"),
    "evaluate": Advice("check the images, or try another --device or --precision"),
}
"""Commands that decode files of other people or run a generator. Either can crash in C code, so they run in a child
process."""


class _LazyGroup(click.Group):
    """Lists its commands by name and imports a command when it is called, so that ``--help`` is instant."""

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
    """Turn H&E whole-slide images into virtual HER2 IHC slides. Research use only.

    \b
    wsi-ihc convert slide.svs -o slide_ihc.ome.tiff

    Exit codes: 0 done, 1 internal error, 2 options, 3 slide, 4 generator, 5 disk, 6 output, 7 device, 8 training data,
    9 training diverged, 10 dask cluster, 11 batch left files out, 70 a library crashed, 130 interrupted.
    """


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Runs the command; an error becomes one line and an exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["batch"] and not {"-q", "--quiet", "-h", "--help"} & set(arguments):
        complain("looking for slides")  # before anything large is imported: a terminal must not stay empty
    advice = _SUPERVISED.get(arguments[0]) if arguments else None
    sys.exit(run_supervised(arguments, _run, advice) if advice else _run(arguments))


def _run(arguments: list[str]) -> int:
    prepare_streams()
    log_to_terminal()
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
        kept = "; finished blocks are kept, run the same command again to continue"
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
        complain(f"{where}{error.strerror or one_line(error)}; check the path, the permissions and the disk")
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
    """Prints a wrong command on one line. The help that click shows for a bare command is longer."""
    said = error.format_message()
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return
    context = error.ctx if isinstance(error, click.UsageError) else None
    where = f" (see {context.command_path} --help)" if context else ""
    complain(f"{said.rstrip('.')}{where}")
