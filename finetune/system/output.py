r"""What is printed or logged: no secrets, nothing that a terminal obeys, and no end of a run because nobody reads on.

Names of files and classes, reasons and servers' answers come from elsewhere. An escape sequence in one of them could
retitle a window, hide a line, or fill the clipboard; it is shown as `\x1b[2J` instead.
"""

import contextlib
import errno
import functools
import io
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, ParamSpec

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from finetune.errors import EXIT_BAD_INPUT, EXIT_FAILED, RunInterrupted
from finetune.system.atomic import DISK_FULL_ERRNOS, WriteError
from finetune.system.redaction import redact, reload_environment_secrets
from finetune.system.signals import StoppedBySignal, handle_signals

P = ParamSpec("P")

# Control characters but tab and newline; what ends a line without looking so; what turns the direction of writing
# (Unicode Technical Report 36, section 2.4); bytes of a file name that are no UTF-8.
_BEYOND = "\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
CONTROL = re.compile(f"[\x00-\x08\x0b-\x1f{_BEYOND}]")
CONTROL_OR_NEWLINE = re.compile(f"[\x00-\x1f{_BEYOND}]")
OUTPUT_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
OUTPUT_GONE_ERRNOS = (errno.EPIPE, errno.EIO, errno.ESHUTDOWN)  # a reader that has ended, a terminal that was closed


def escape_control_characters(text: str) -> str:
    """Return a text, of one line or several, in which control characters are spelled out."""
    return CONTROL.sub(_escape, text)


def one_line(text: str) -> str:
    """Return a text on one line: newlines are spelled out, too, so that it can't pass for several lines of a log."""
    return CONTROL_OR_NEWLINE.sub(_escape, text)


def count_text(number: int, noun: str, plural: str = "") -> str:
    """Return a number and what it counts, such as `1 image` or `2,000 images`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


class _SafeFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(escape_control_characters(super().format(record)))


class _StreamHandler(logging.Handler):
    """Prints records to a standard stream, as it is when they come; where that can't be written, they are lost."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):  # a full disk ends a run where results are lost, and not here
            print(self.format(record), file=getattr(sys, self._name), flush=True)


class _FileHandler(logging.Handler):
    """Appends records to a file in a folder that may not exist yet; where it can't be written, they are lost."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(self.format(record) + "\n")


@contextlib.contextmanager
def logging_to(stream: str | None = None, file: Path | None = None) -> Iterator[None]:
    """Send the package's log, redacted and escaped, to these places alone within the block.

    Args:
        stream: `stdout` or `stderr`.
        file: a run's log, which is appended to.
    """
    logger = logging.getLogger("finetune")
    before, level = logger.handlers, logger.level
    handlers: list[logging.Handler] = [] if stream is None else [_StreamHandler(stream)]
    handlers += [] if file is None else [_FileHandler(file)]
    for handler in handlers:
        handler.setFormatter(_SafeFormatter())
    logger.handlers = handlers
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.handlers = before
        logger.setLevel(level)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


class SafeConsole(Console):
    """A console that obeys its own colours and bars, and nothing in what it is given to show."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=redact(escape_control_characters(segment.text)))

    @property
    def file(self) -> IO[str]:
        """The stream past `Tame`: what a console writes has been made harmless, and has colours."""
        stream = super().file
        past: Any = stream.past if isinstance(stream, SafeStream) else stream
        return past  # type: ignore[no-any-return]

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file

    def on_broken_pipe(self) -> None:
        """Show no more; rich would end the process, and with it the runs that it looks after."""
        self.quiet = True
        _redirect_to_devnull(self.file)


class OutputClosed(BaseException):
    """Whoever reads the output of a command has seen enough."""


class SafeStream(io.TextIOBase):
    """A standard stream whose texts are made harmless, and whose reader may go.

    Where it goes to a file on a disk that is full, what is told on the way to a result is left out, and the command
    goes on; of a result, nothing is left out: OSError.

    Attributes:
        lost: why something was left out; empty where nothing was.
    """

    def __init__(self, stream: IO[str], is_result: bool) -> None:
        self.stream = stream
        self.past = _UnfilteredStream(self)
        self.lost = ""
        self._is_result = is_result

    def write(self, text: str) -> int:
        self.attempt(lambda: self.stream.write(redact(escape_control_characters(text))))
        return len(text)

    def flush(self) -> None:
        self.attempt(self.stream.flush)

    def attempt(self, work: Callable[[], Any]) -> None:
        """Do what writes to the stream, and deal with what keeps it from being written to."""
        try:
            work()
        except OSError as error:
            if error.errno in DISK_FULL_ERRNOS:
                self.lost = error.strerror or str(error)
                if self._is_result:
                    raise OSError(error.errno, self.lost, "standard output") from error
            elif error.errno in OUTPUT_GONE_ERRNOS:
                _redirect_to_devnull(self.stream)
                if self._is_result:
                    raise OutputClosed from None
            else:
                raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()


class _UnfilteredStream:
    """The same stream for texts that have been made harmless."""

    def __init__(self, tame: SafeStream) -> None:
        self._tame = tame

    def write(self, text: str) -> int:
        self._tame.attempt(lambda: self._tame.stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._tame.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tame.stream, name)


def _redirect_to_devnull(stream: IO[str]) -> None:
    """Have what is still written go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def make_streams_safe(is_result: bool = False) -> None:
    """Make the standard streams of this process harmless, from now on.

    Args:
        is_result: what goes to the output is what the command is for: raise ReaderGone once nobody reads it.
    """
    reload_environment_secrets()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or isinstance(stream, SafeStream):
            continue
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what a terminal without Unicode can't show is spelled out
        setattr(sys, name, SafeStream(stream, is_result and name == "stdout"))


@contextlib.contextmanager
def safe_streams(is_result: bool = False) -> Iterator[None]:
    """Make the standard streams harmless within the block; see `tame`."""
    before = sys.stdout, sys.stderr
    make_streams_safe(is_result)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            plain = stream.stream if isinstance(stream, SafeStream) else stream
            if plain is not None:
                try:
                    with contextlib.suppress(ValueError):  # closed
                        plain.flush()
                except OSError:
                    _redirect_to_devnull(plain)  # Python would try again at its end, and fail with a code of its own
        sys.stdout, sys.stderr = before


def command(main: Callable[P, int]) -> Callable[P, int]:
    """Wrap the `main` of a command: safe streams, a log on stderr, and an exit code for every expected end.

    An error that a user can fix is printed without a traceback, and its class decides the exit code. Ctrl-C and SIGTERM
    leave through all `finally` blocks, so that no file stays half-written; a second signal kills.
    """
    return _command(main, is_result=False)


def result_command(main: Callable[P, int]) -> Callable[P, int]:
    """Wrap the `main` of a command whose standard output is its result: it ends with 0 once nobody reads that."""
    return _command(main, is_result=True)


def _command(main: Callable[P, int], is_result: bool) -> Callable[P, int]:

    @functools.wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> int:
        with handle_signals(keep_custom=True) as received, safe_streams(is_result), logging_to("stderr"):
            try:
                return _flush_or_fail(main(*args, **kwargs))
            except OutputClosed:
                return 0
            except (StoppedBySignal, KeyboardInterrupt, RunInterrupted) as error:
                message = str(error) if isinstance(error, RunInterrupted) else "interrupted"
                print(f"{message}; run the same command again to continue", file=sys.stderr)
                return 128 + (received.number or signal.SIGINT)
            except Exception as error:
                code = _exit_code(error)
                if code is None:
                    raise
                print(f"{type(error).__name__}: {_message(error)}", file=sys.stderr)
                return code

    return wrapped


def _exit_code(error: Exception) -> int | None:
    """Return the exit code of an error that a command reports, or None for a fault of the code.

    The project's own errors carry theirs. A file that can't be read or written is bad input; a full disk, also the one
    that the output goes to, is a failure.
    """
    code: int | None = getattr(error, "exit_code", None)
    if code is None and isinstance(error, OSError):
        if error.errno in OUTPUT_FULL_ERRNOS:
            return EXIT_FAILED
        return EXIT_BAD_INPUT if error.filename is not None else None
    return code


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, WriteError):
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror or str(error)
    return str(error)


def _flush_or_fail(code: int) -> int:
    """Return the exit code of a command that has done its work: a failure where not all could be told."""
    stream = sys.stdout
    if isinstance(stream, SafeStream):
        with contextlib.suppress(ValueError):  # closed
            stream.flush()
    if not isinstance(stream, SafeStream) or not stream.lost:
        return code
    print(f"standard output: {stream.lost}; not all that was to be printed is there. Make room there", file=sys.stderr)
    return code or EXIT_FAILED
