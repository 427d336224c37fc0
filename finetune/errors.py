"""The errors this package raises on purpose, and the exit code each one ends a command with."""

from collections.abc import Iterable
from difflib import get_close_matches

EXIT_FAILED = 1  # a run failed
EXIT_BAD_INPUT = 2  # the user's input has a fault; nothing was started


class UserError(Exception):
    """Something the user gave is wrong; the message says what, where, and how to mend it.

    Attributes:
        exit_code: of the command that it ends.
    """

    exit_code = EXIT_BAD_INPUT


class CorruptFileError(UserError, ValueError):
    """A file that a run or an agent wrote holds something else than it should."""


class ConfigError(UserError):
    """All faults of one config at once.

    Attributes:
        faults: one line each, beginning with the field's name.
    """

    def __init__(self, faults: Iterable[str], where: str) -> None:
        self.faults = list(faults)
        count = f"{len(self.faults)} fault{'s' if len(self.faults) > 1 else ''}"
        super().__init__("\n".join([f"{count} in {where}", *(f"  {fault}" for fault in self.faults)]))


class DataError(UserError):
    """The pictures, or the way they are laid out, can't be used."""


class WeightsError(UserError):
    """The pretrained weights are missing or are not of this backbone."""


class NotDownloadedError(UserError):
    """Data or weights can be fetched, but are not on this machine yet; see client.py."""


class DownloadError(UserError):
    """A file can't be fetched; the message says from where, and why."""


class DiskFullError(UserError):
    """The disk has no room for what is to be written, which is no fault of what the user gave."""

    exit_code = EXIT_FAILED


class TrainingError(Exception):
    """Training can't go on: the memory is too small, say. Exit code 1."""


class DivergedError(TrainingError):
    """The loss is not finite: a result of these rates rather than a fault."""


class ExportError(Exception):
    """A network can't be exported, or what was exported does not say what torch does. Exit code 1."""


class RunInterrupted(Exception):
    """The run was asked to stop, and did; the message says where. Exit code 128 + the signal's number."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the known name nearest to `name`, or an empty string."""
    matches = get_close_matches(name, list(known), n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""
