"""SIGINT and SIGTERM: the first one lets work finish and save, the second one ends the process and its children."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

import psutil

SIGNALS = (signal.SIGINT, signal.SIGTERM)

# `timeout` and some job launchers send one signal twice: to the process and to its group. That is one request.
SAME_REQUEST_SECONDS = 0.5

RETRY_SECONDS = 0.05  # after which a signal that arrived during an import is sent again
SHOW_CURSOR = b"\x1b[?25h\n"  # a progress bar hides it

_polling = False  # whether the running code asks for signals itself, so that a signal need only be recorded
_active: list["ReceivedSignals"] = []  # of the `handle_signals` blocks that this process is in, the innermost last


class StoppedBySignal(SystemExit):
    """SIGINT or SIGTERM arrived; leaves through all `finally` blocks, with exit code 128 + the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class ReceivedSignals:
    """The requests to stop that arrived as signals.

    Attributes:
        number: the number of the first signal, 0 before one arrived.
        count: the number of requests; signals in quick succession are one.
    """

    def __init__(self, same_request_seconds: float = SAME_REQUEST_SECONDS, kills: bool = True) -> None:
        self.number = 0
        self.count = 0
        self._counted_at = 0.0
        self._same_request_seconds = same_request_seconds
        self._kills = kills

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Record a signal; see `handle_signals`. This is the signal handler."""
        now = time.monotonic()
        if not self.count and not _polling and defer_during_import(number, frame):
            return
        # Measured from the last signal that counted, or somebody who presses Ctrl-C again and again is never heard.
        if self.count and now - self._counted_at <= self._same_request_seconds:
            return
        self.number = self.number or number
        self.count += 1
        self._counted_at = now
        if self.count == 1 and not _polling:
            raise StoppedBySignal(number)
        if self.count > 1 and self._kills:
            kill_descendants(os.getpid())
            if os.isatty(2):
                os.write(2, SHOW_CURSOR)
            os._exit(128 + number)


@contextlib.contextmanager
def handle_signals(
    same_request_seconds: float = SAME_REQUEST_SECONDS, *, kills: bool = True, keep_custom: bool = False
) -> Iterator[ReceivedSignals]:
    """Handle SIGINT and SIGTERM within the block, and yield what has been received. For the main thread.

    A first signal raises StoppedBySignal or, inside `polling_signals`, is only recorded. A second one kills this
    process and all that it has started. A signal received in an inner block counts for the outer ones, too.

    Args:
        same_request_seconds: signals that follow so soon belong to the same request.
        kills: whether a second signal kills; otherwise it is only counted.
        keep_custom: leave a signal alone that is ignored (`nohup`, a shell's `trap '' INT`) or has a handler already.
    """
    received = ReceivedSignals(same_request_seconds, kills)
    is_main = threading.current_thread() is threading.main_thread()
    usual = (signal.default_int_handler, signal.SIG_DFL)
    replaced = [number for number in SIGNALS if is_main and (not keep_custom or signal.getsignal(number) in usual)]
    before = {number: signal.signal(number, received.receive) for number in replaced}
    _active.append(received)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _active.remove(received)
        if _active:
            _active[-1].number = _active[-1].number or received.number


@contextlib.contextmanager
def polling_signals() -> Iterator[None]:
    """Within the block, only record a first signal: the code asks after each step whether one has arrived."""
    global _polling
    before, _polling = _polling, True
    try:
        yield
    finally:
        _polling = before


@contextlib.contextmanager
def counting_signals() -> Iterator[ReceivedSignals]:
    """Within the block, count signals and do nothing else: the first lets runs save and end, the second ends them."""
    with handle_signals(kills=False) as received, polling_signals():
        yield received


def defer_during_import(number: int, frame: FrameType | None) -> bool:
    """Return whether a module is being imported; if so, the signal is sent again a little later.

    For handlers that raise. An exception inside a C++ library that is being loaded, such as torch's, aborts the process
    or looks like a library that can't be loaded.

    Args:
        frame: the interrupted stack frame, as handlers receive it.
    """
    while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    if frame is None:
        return False
    again = threading.Timer(RETRY_SECONDS, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()
    return True


def kill_tree(pid: int) -> None:
    """Kill a process and all its descendants, in whatever groups and sessions."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)  # otherwise it would notice that its children end, and act
        kill_descendants(pid)
        os.kill(pid, signal.SIGKILL)


def kill_descendants(pid: int) -> None:
    """Kill all descendants of a process."""
    found: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        # All are stopped before the first is killed: none can start another meanwhile, or react to the end of another.
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
    """Block both signals in processes started within the block; `ignore_signals_in_worker` unblocks them.

    Otherwise a signal to the group would kill a loader process that is still starting, and its run would fail.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_signals_in_worker(worker: int) -> None:  # noqa: ARG001  (the signature of a DataLoader's worker_init_fn)
    """Keep a loader process alive for a while after a signal, so that the run can finish its step.

    Ctrl-C on a terminal, and batch systems, signal all processes of a run. The run ends its loaders itself; the delay
    after SIGTERM ends them where the run was killed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(20))  # SIGALRM ends the process
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
