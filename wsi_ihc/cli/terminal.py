"""Lines for the terminal: whatever a name holds stays text, and a reader who has left ends no work."""

from __future__ import annotations

import io
import logging
import os
import sys
from contextlib import suppress

import click

from wsi_ihc.machine.text import PrintableRecord, printable


def say(text: object, *, err: bool = False) -> None:
    """``text`` as one line on standard output, or on standard error; text from names and files is escaped.

    Nothing happens where the stream is closed or nobody reads it any more.
    """
    with suppress(OSError, ValueError):
        click.echo(printable(text), err=err)


def complain(text: object) -> None:
    """One line of the program itself on standard error."""
    say(f"wsi-ihc: {text}", err=True)


def prepare_streams() -> None:
    """Makes the standard streams take any text, and logs escape what comes from names and files.

    A stream that the caller has closed is opened onto nothing: else the next file would get its number, and what a
    library prints would end up in that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    logging.setLogRecordFactory(PrintableRecord)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def log_to_terminal(level: int = logging.WARNING) -> None:
    """Log lines of wsi-ihc from ``level`` on become lines of the program on standard error; others only when errors."""
    logging.basicConfig(format="wsi-ihc: %(message)s", level=logging.ERROR)
    logging.getLogger("wsi_ihc").setLevel(level)
    # These log a line for every tag of a damaged or informal header; our own line says what matters.
    for library in ("tifffile", "pydicom"):
        logging.getLogger(library).propagate = False  # pydicom sets its own level when it is imported
        logging.getLogger(library).addHandler(logging.NullHandler())


def flush_streams() -> None:
    """Writes out what is left. What nobody reads is dropped here: at the interpreter's end it would be a traceback."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
