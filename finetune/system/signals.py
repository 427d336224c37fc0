"""SIGINT and SIGTERM: the first lets a run finish its step and save, the second ends all there is at once."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import FrameType

import psutil

SIGNALS = (signal.SIGINT, signal.SIGTERM)

# `timeout` and some job launchers send one signal twice, to the process and to its group. That is no second request.
SAME_REQUEST_SECONDS = 0.5

AGAIN_SECONDS = 0.05  # after which a signal that was put off comes again

_polled = False  # whether somebody asks, so that a signal need only be noted


class ReceivedSignals:
    """The signals received.

    Attributes:
        number: 0, or the number of the first one.
    """

    def __init__(self, same_request_seconds: float) -> None:
        self.number = 0
        self._at = 0.0
        self._same_request_seconds = same_request_seconds

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Note a first signal and, where nobody asks for it, leave through all `finally`s; end at once at a second."""
        if not self.number:
            if not _polled and defer_during_import(number, frame):
                return
            self.number, self._at = number, time.monotonic()
            if not _polled:
                raise SystemExit(128 + number)
        elif time.monotonic() - self._at > self._same_request_seconds:
            kill_descendants(os.getpid())
            if os.isatty(2):
                os.write(2, b"\x1b[?25h\n")  # shows the cursor, which a progress bar hides
            os._exit(128 + number)


@contextlib.contextmanager
def handle_signals(
    numbers: Iterable[int] = SIGNALS, same_request_seconds: float = SAME_REQUEST_SECONDS
) -> Iterator[ReceivedSignals]:
    """Handle these signals, and yield what has been received. For the main thread.

    A first signal raises SystemExit with 128 + its number or, inside `polled`, is only noted. A second one ends this
    process and all that it has started.

    Args:
        same_request_seconds: signals so soon after the first are taken for the same request.
    """
    received = ReceivedSignals(same_request_seconds)
    before = {number: signal.signal(number, received.receive) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def defer_during_import(number: int, frame: FrameType | None) -> bool:
    """Return whether a module is being imported; the signal is then sent again a little later.

    For handlers that raise. Inside a library in C++ that is being loaded, such as those of torch, an exception ends the
    process on the spot, or is taken for a library that can't be loaded.

    Args:
        frame: where the signal came, as handlers are told.
    """
    while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    if frame is None:
        return False
    again = threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()
    return True


@contextlib.contextmanager
def polling_signals() -> Iterator[None]:
    """Have a first signal only noted: what runs in here asks after each step whether one has come."""
    global _polled
    before, _polled = _polled, True
    try:
        yield
    finally:
        _polled = before


def kill_tree(pid: int) -> None:
    """End a process and all that it has started, in whatever groups and sessions, at once."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)  # or it would see what it waits for end, and go on
        kill_descendants(pid)
        os.kill(pid, signal.SIGKILL)


def kill_descendants(pid: int) -> None:
    """Kill what a process has started, and what that has started, at once."""
    found: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        # All are stopped before the first is killed: none can start another meanwhile, or outlive what it waits for.
        while new := [process for process in root.children(recursive=True) if process not in found]:
            for process in new:
                with contextlib.suppress(psutil.Error):
                    process.suspend()
            found += new
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.kill()


@contextlib.contextmanager
def block_signals() -> Iterator[None]:
    """Keep signals from the processes that are started in here until each has called `finish_first`.

    Before that, a signal to the whole group would end a process that is just starting, and the run with it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_signals_in_worker(worker: int) -> None:  # noqa: ARG001  (the signature of a DataLoader's worker_init_fn)
    """Let a loader process live on for a while after a signal, so that the run can finish its step.

    Ctrl-C on a terminal, and batch systems, signal all processes of a run. Its end is the run's to decide; the delay
    after SIGTERM is for a run that can no longer.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(20))  # SIGALRM ends a process
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


class StoppedBySignal(BaseException):
    """SIGINT or SIGTERM came before any run was started.

    Attributes:
        signal: its number.
    """

    def __init__(self, signal: int) -> None:
        self.signal = signal


def raise_stopped(number: int, frame: FrameType | None) -> None:
    """Raise Interrupted: the handler of both signals until runs are started."""
    if not defer_during_import(number, frame):
        raise StoppedBySignal(number)


@dataclass
class StopRequests:
    """The signals the agent has received: the first lets runs save and end, the second ends them at once."""

    count: int = 0
    signal: int = 0


@contextlib.contextmanager
def counting_signals() -> Iterator[StopRequests]:
    """Count SIGINT and SIGTERM instead of ending."""
    stop, last = StopRequests(), -SAME_REQUEST_SECONDS

    def note(number: int, frame: object) -> None:  # noqa: ARG001  (the signature of a signal handler)
        nonlocal last
        before, last = last, time.monotonic()
        if last - before > SAME_REQUEST_SECONDS:
            stop.count += 1
            stop.signal = stop.signal or number

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
