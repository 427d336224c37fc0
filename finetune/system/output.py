r"""Safe standard streams and logs: secrets redacted, control characters escaped, closed pipes tolerated.

File names, class names, error messages and servers' answers are untrusted. An escape sequence in one of them could
retitle a window, hide a line, or fill the clipboard; it is printed as `\x1b[2J` instead.
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

# Control characters but tab and newline; Unicode's line separators; characters that change the direction of writing
# (Unicode Technical Report 36, section 2.4); surrogates, which stand for bytes of a file name that are not UTF-8.
_BEYOND = "\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
CONTROL = re.compile(f"[\x00-\x08\x0b-\x1f{_BEYOND}]")
CONTROL_OR_NEWLINE = re.compile(f"[\x00-\x1f{_BEYOND}]")
OUTPUT_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
OUTPUT_GONE_ERRNOS = (errno.EPIPE, errno.EIO, errno.ESHUTDOWN)  # the reader ended, the terminal was closed


def escape_control_characters(text: str) -> str:
    """Return a text, of one line or several, with control characters escaped."""
    return CONTROL.sub(_escape, text)


def one_line(text: str) -> str:
    """Return a text with newlines escaped, too, so that it can't forge lines of a log."""
    return CONTROL_OR_NEWLINE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def count_text(number: int, noun: str, plural: str = "") -> str:
    """Return a number and what it counts, such as `1 image` or `2,000 images`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


class _SafeFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(escape_control_characters(super().format(record)))


class _StreamHandler(logging.Handler):
    """Prints records to the current sys.stdout or sys.stderr; where that can't be written, they are lost."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):  # a full disk must end a run only where results would be lost
            print(self.format(record), file=getattr(sys, self._name), flush=True)


class _FileHandler(logging.Handler):
    """Appends records to a file whose folder may not exist yet; where it can't be written, they are lost."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(self.format(record) + "\n")


@contextlib.contextmanager
def logging_to(stream: str | None = None, file: Path | None = None) -> Iterator[None]:
    """Within the block, send the package's log, redacted and escaped, to these places only.

    Args:
        stream: `stdout` or `stderr`.
        file: a run's log, to which lines are appended.
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


class SafeConsole(Console):
    """A rich console that prints its own control sequences, and escapes those in the text."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=redact(escape_control_characters(segment.text)))

    @property
    def file(self) -> IO[str]:
        """The unfiltered stream: the console's text is safe already, and its colour codes must pass."""
        stream = super().file
        unfiltered: Any = stream.unfiltered if isinstance(stream, SafeStream) else stream
        return unfiltered  # type: ignore[no-any-return]

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file

    def on_broken_pipe(self) -> None:
        """Print nothing more; rich would end the process, and with it the runs that it supervises."""
        self.quiet = True
        _redirect_to_devnull(self.file)


class OutputClosed(BaseException):
    """Nobody reads the output of a result command any more, as in `... | head`."""


class SafeStream(io.TextIOBase):
    """A standard stream that redacts and escapes its text, and whose reader may disappear.

    On a full disk, progress messages are lost and the command continues; a result raises OSError.

    Attributes:
        unfiltered: the stream for text that is safe already.
        lost: why text was lost; empty if none was.
    """

    def __init__(self, stream: IO[str], is_result: bool) -> None:
        self.stream = stream
        self.unfiltered = _UnfilteredStream(self)
        self.lost = ""
        self._is_result = is_result

    def write(self, text: str) -> int:
        self.attempt(lambda: self.stream.write(redact(escape_control_characters(text))))
        return len(text)

    def flush(self) -> None:
        self.attempt(self.stream.flush)

    def attempt(self, write: Callable[[], Any]) -> None:
        """Call what writes to the stream, and handle a full disk or a reader that is gone."""
        try:
            write()
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
    """A safe stream's stream, for text that is safe already."""

    def __init__(self, safe: SafeStream) -> None:
        self._safe = safe

    def write(self, text: str) -> int:
        self._safe.attempt(lambda: self._safe.stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._safe.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._safe.stream, name)


def _redirect_to_devnull(stream: IO[str]) -> None:
    """Discard everything written to the stream from now on."""
    with contextlib.suppress(OSError, ValueError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, stream.fileno())
        os.close(devnull)


def make_streams_safe(is_result: bool = False) -> None:
    """Replace the standard streams of this process by safe ones.

    Args:
        is_result: whether standard output is the command's result: raise OutputClosed once nobody reads it.
    """
    reload_environment_secrets()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or isinstance(stream, SafeStream):
            continue
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without Unicode gets escapes
        setattr(sys, name, SafeStream(stream, is_result and name == "stdout"))


@contextlib.contextmanager
def safe_streams(is_result: bool = False) -> Iterator[None]:
    """Replace the standard streams by safe ones within the block; see `make_streams_safe`."""
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
                    _redirect_to_devnull(plain)  # Python would flush again at exit, fail, and change the exit code
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
    """Return the exit code of a command that is done: a failure if part of its output was lost."""
    stream = sys.stdout
    if isinstance(stream, SafeStream):
        with contextlib.suppress(ValueError):  # closed
            stream.flush()
    if not isinstance(stream, SafeStream) or not stream.lost:
        return code
    print(f"standard output: {stream.lost}; part of the output is lost. Make room there", file=sys.stderr)
    return code or EXIT_FAILED
