"""Everything that wsi-ihc raises on purpose.

Each message names the file, what was seen and what to do, on one line. The command line prints it and exits with
the class's ``exit_code``; nothing else turns an error into text. Members also inherit the builtin that a caller
would expect to catch.

    WsiIhcError                      1
    ├── SettingsError (ValueError)   2   an option, a configuration file or a combination that is invalid
    ├── SlideError                   3   the input
    │   ├── UnreadableSlideError (OSError)         missing, truncated, damaged, or no slide at all
    │   ├── UnsupportedSlideError (ValueError)     a sound file that is not a brightfield H&E slide we can read
    │   └── ResolutionError (ValueError)           pixel size missing, absurd, or too coarse for the generator
    ├── GeneratorError (ValueError)  4   weights or a bundle that cannot be used
    ├── StorageError (OSError)       5   the disk: full, read-only, vanished; the store stays resumable
    ├── OutputError                  6   an output that exists, is locked, or failed verification
    ├── DeviceError (RuntimeError)   7   a device that is missing or out of memory at batch one
    ├── DataSetError (ValueError)    8   training or evaluation data that cannot be used
    │   └── SizesDifferError                       an H&E image and its IHC
    ├── TrainingError (ArithmeticError) 9   a training that has diverged; its last good checkpoint is kept
    └── ClusterError (ConnectionError) 10   a dask scheduler or its workers that cannot be reached, or are lost
"""


class WsiIhcError(Exception):
    """Root of the tree."""

    exit_code = 1


class SettingsError(WsiIhcError, ValueError):
    """An option, a configuration file, or a combination of them that is invalid."""

    exit_code = 2


class SlideError(WsiIhcError):
    """The input slide."""

    exit_code = 3


class UnreadableSlideError(SlideError, OSError):
    """Missing, truncated, damaged, or not an image."""


class UnsupportedSlideError(SlideError, ValueError):
    """A sound file, but not a brightfield RGB slide that we can read."""


class ResolutionError(SlideError, ValueError):
    """Pixel size missing, absurd, or too coarse for the generator."""


class GeneratorError(WsiIhcError, ValueError):
    """Weights or a bundle that cannot be used."""

    exit_code = 4


class StorageError(WsiIhcError, OSError):
    """The disk is full, read-only or gone; what was stored stays resumable."""

    exit_code = 5


class OutputError(WsiIhcError):
    """An output that exists, is locked by another run, or failed verification."""

    exit_code = 6


class DeviceError(WsiIhcError, RuntimeError):
    """A device that is missing, or out of memory at batch one."""

    exit_code = 7


class DataSetError(WsiIhcError, ValueError):
    """Training or evaluation data that cannot be used."""

    exit_code = 8


class SizesDifferError(DataSetError):
    """An H&E image and its IHC are not of one size."""


class TrainingError(WsiIhcError, ArithmeticError):
    """A training whose losses or weights are no longer numbers; the last good checkpoint is kept."""

    exit_code = 9


class ClusterError(WsiIhcError, ConnectionError):
    """A dask scheduler that does not answer or is lost, or one without workers; what was stained is kept."""

    exit_code = 10


def one_line(error: BaseException) -> str:
    """The text of a library's ``error`` on one line, to be part of a message; its class when it has no text."""
    return " ".join(str(error).split()) or type(error).__name__
