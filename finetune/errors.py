"""The errors this package raises on purpose: the exit code that each ends a command with, and the cause of failure."""

from collections.abc import Iterable
from difflib import get_close_matches

EXIT_FAILED = 1  # a run failed, or a file could not be written
EXIT_BAD_INPUT = 2  # the user's input has a fault; nothing was started


class UserError(Exception):
    """Something the user gave is wrong; the message says what, where, and how to fix it.

    Attributes:
        exit_code: of the command that the error ends (also of the other errors here).
        cause: one of `rundir.failures.CAUSES`, None where the error behind it decides (also of the others).
    """

    exit_code = EXIT_BAD_INPUT
    cause: str | None = "input"


class CorruptFileError(UserError, ValueError):
    """A file that a run or an agent wrote does not hold what it should."""

    cause = "disk"


class ConfigError(UserError):
    """All faults of one config at once.

    Attributes:
        faults: one line each, beginning with the field's name.
    """

    def __init__(self, faults: Iterable[str], source: str) -> None:
        self.faults = list(faults)
        count = f"{len(self.faults)} fault{'s' if len(self.faults) > 1 else ''}"
        super().__init__("\n".join([f"{count} in {source}", *(f"  {fault}" for fault in self.faults)]))


class DataError(UserError):
    """The images, or the way they are laid out, can't be used."""

    cause = "data"


class WeightsError(UserError):
    """The pretrained weights are missing or do not fit the backbone."""


class SearchError(UserError):
    """W&B's search engine fails on this sweep, or on the results so far."""


class NotDownloadedError(UserError):
    """Data or weights that can be downloaded are not on this machine yet; see run/fetch.py."""

    cause = "network"


class DownloadError(UserError):
    """A file can't be downloaded; the message says from where, and why."""

    cause = "network"


class DiskFullError(UserError):
    """The disk has no room for what is to be written."""

    exit_code = EXIT_FAILED
    cause = "disk"


class TrainingError(Exception):
    """Training can't continue, for example because the memory is too small."""

    exit_code = EXIT_FAILED
    cause: str | None = None


class DivergedError(TrainingError):
    """The loss is not finite: a result of these learning rates rather than a fault."""

    cause = "divergence"


class ExportError(Exception):
    """A network can't be exported, or the exported file's outputs differ from torch's."""

    exit_code = EXIT_FAILED
    cause: str | None = None


class RunInterrupted(Exception):
    """The run stopped on request; the message says where. Exit code 128 + the signal's number."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the known name nearest to `name`, or an empty string."""
    matches = get_close_matches(name, list(known), n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""
