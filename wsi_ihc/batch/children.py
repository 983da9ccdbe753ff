"""One conversion in a process of its own: its command, what it says, how it ended and what that means."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from wsi_ihc.batch.cohort import Entry
from wsi_ihc.batch.records import FOLDER
from wsi_ihc.batch.thumbnails import he_picture
from wsi_ihc.config import ConversionSettings
from wsi_ihc.errors import ClusterError, GeneratorError, StorageError
from wsi_ihc.machine.child import FROM_OUTSIDE, PROGRAM, SUPERVISED, describe_signal
from wsi_ihc.machine.regular_files import open_to_append

ConvertCommand = Callable[[Path, Path, ConversionSettings, bool], list[str]]
"""Slide, output, settings and whether to overwrite: the command line that converts it."""

_TAIL_BYTES = 4096
_BY_THE_SLIDE = frozenset((1, 2, 3, 4))
"""Exit codes of failures that the same slide with the same settings meets again; for others the machine is to blame."""


def convert_command(
    slide: Path, output: Path, settings: ConversionSettings, overwrite: bool, *, report: bool = True
) -> list[str]:
    """``wsi-ihc convert`` with every setting that differs from its default.

    It also writes a picture of the slide for the page of the batch, and a report beside the output.
    """
    changed = settings.model_dump(mode="json", exclude_defaults=True)
    assignments = [
        f"{section}.{key}={json.dumps(value, ensure_ascii=False)}"
        for section, values in changed.items()
        for key, value in values.items()
    ]
    options = [word for assignment in assignments for word in ("--set", assignment)]
    picture = he_picture(output.parent / FOLDER, output.name.removesuffix(".ome.tiff"))
    words = [str(slide), "-o", str(output), "--thumbnail", str(picture), *(["--report"] if report else []), *options]
    return [*PROGRAM, "convert", *words, *(["--overwrite"] if overwrite else [])]


def generator_fingerprint(name: str) -> str:
    """Name of a generator and sha256 of its weights, read in a child process so that this one stays small.

    Raises:
        GeneratorError: it does not exist or cannot be used.
    """
    command = [*PROGRAM, "weights", "show", "--json", "--", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except ValueError as error:  # a NUL in the name
        raise GeneratorError(f"generator {name}: {error}") from None
    if done.returncode:
        raise GeneratorError(_last_line(done.stderr) or f"generator {name}: cannot be used")
    card = json.loads(done.stdout)
    return f"{card['name']} {card['sha256']}"


def fingerprints(
    entries: Sequence[Entry], fingerprint: Callable[[str], str] = generator_fingerprint
) -> dict[str, str | GeneratorError]:
    """The fingerprint of each generator by the name that the entries give it, or why it cannot be used.

    Raises:
        GeneratorError: none of them can be used.
    """
    found: dict[str, str | GeneratorError] = {}
    for name in dict.fromkeys(entry.settings.generator.name for entry in entries):
        try:
            found[name] = fingerprint(name)
        except GeneratorError as error:
            found[name] = error
    errors = [error for error in found.values() if isinstance(error, GeneratorError)]
    if errors and len(errors) == len(found):
        raise errors[0]
    return found


@dataclass(frozen=True)
class Ending:
    """How a child ended."""

    ok: bool
    reason: str = ""
    retry: bool = True
    """Whether the machine is to blame: the next run then tries the slide again by itself."""
    alone: bool = True
    """Whether the failure concerns this slide only; the loss of the cluster concerns all."""


@dataclass
class Child:
    """A running conversion."""

    process: subprocess.Popen[bytes]
    log: Path
    begins: int
    """Where this attempt begins in the log."""
    started: float
    stopped: str = ""
    """Why we ended it."""
    asked: float = 0.0
    """When it was first asked to end."""

    @classmethod
    def start(cls, command: list[str], log: Path, environment: Mapping[str, str], why: str) -> Child:
        """Output goes to ``log``. Linux ends the child when the thread that calls this ends.

        Raises:
            StorageError: the log cannot be written.
        """
        try:
            with os.fdopen(open_to_append(log), "ab") as stream:
                head = f"--- {datetime.now().astimezone().isoformat(timespec='seconds')}{f', {why}' if why else ''}\n"
                stream.write(f"{head}{subprocess.list2cmdline(command)}\n".encode(errors="surrogateescape"))
                stream.flush()
                begins = os.fstat(stream.fileno()).st_size
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **environment, SUPERVISED: str(os.getpid())},
                    # The terminal's Ctrl-C is for the batch, which then ends its children in good order.
                    start_new_session=True,
                )
        except OSError as error:
            raise StorageError(f"{log}: the log cannot be written ({error.strerror})") from None
        return cls(process, log, begins, time.monotonic())

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def said(self) -> str:
        """The last line of this attempt."""
        return _last_line(self._tail())

    def stop(self, why: str, number: int = signal.SIGINT) -> None:
        self.stopped, self.asked = self.stopped or why, self.asked or time.monotonic()
        if self.process.poll() is None:
            # The child leads a group of its own, so what it has started goes with it.
            with suppress(ProcessLookupError, PermissionError):  # it has just ended
                os.killpg(self.process.pid, number)

    def ending(self) -> Ending | None:
        """None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        if code == 0:
            return Ending(True)
        if self.stopped:
            return Ending(False, self.stopped, retry=False)
        if code < 0:
            return _explain_signal(-code)
        reason = self.said() or f"ended with exit code {code}"
        return Ending(False, reason, code not in _BY_THE_SLIDE, alone=code != ClusterError.exit_code)

    def _tail(self) -> str:
        try:
            with self.log.open("rb") as stream:
                stream.seek(max(self.begins, self.log.stat().st_size - _TAIL_BYTES))
                return stream.read(_TAIL_BYTES).decode(errors="surrogateescape")
        except OSError:
            return ""


def _last_line(text: str) -> str:
    """The command's own last line, else the last of whatever was written."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("wsi-ihc: ")]
    return (own or lines or [""])[-1].removeprefix("wsi-ihc: ").removeprefix("Error: ")


def _explain_signal(number: int) -> Ending:
    if number in FROM_OUTSIDE:
        return Ending(False, describe_signal(number))
    return Ending(False, f"{describe_signal(number)}; try another --reader or --backend torch", retry=False)
