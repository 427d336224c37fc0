"""The processes that tests start: found by marks in their environment, and ended with the tests that started them.

Each pytest process has a reaper, which waits for the end of pytest, even by SIGKILL, and then kills all that carries
pytest's mark. Whatever a test starts inherits the mark. A fork keeps the environment of pytest's own start instead, and
asks the kernel to end it (`end_with_parent`).
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable

import psutil

from tests.support.offline import SESSION

MARK = "AGENT_MARK"  # the mark of all that one test starts
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_REAPER = "from tests.support.processes import reap; reap()"


def marked(value: str, name: str = MARK) -> list[psutil.Process]:
    """Return the live processes in whose environment the variable `name` is `value`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(name) == value:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def end_marked(value: str, name: str = MARK) -> None:
    """Kill the processes in whose environment `name` is `value`, until none is left, for ten seconds at most."""
    for _ in range(100):
        left = [process for process in marked(value, name) if process.pid != os.getpid()]
        if not left:
            return
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):  # has ended by itself just now
                process.kill()
        time.sleep(0.1)  # one of them may have been starting another


def start_reaper(session: str) -> None:
    """Give this process the mark `session`, and start the process that ends all others with it once this one ends."""
    os.environ[SESSION] = session
    quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    # No Popen, which would warn at the end of this process that its child still runs.
    os.posix_spawn(sys.executable, [sys.executable, "-c", _REAPER, str(os.getpid())], os.environ, file_actions=quiet)


def reap() -> None:
    """Be the reaper of the parent process."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.getppid() == int(sys.argv[1]):
        time.sleep(0.5)
    end_marked(os.environ[SESSION], SESSION)


def end_with_parent() -> None:
    """Have the kernel kill this fork when its parent ends, on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def wait_until(condition: Callable[[], bool], seconds: float = 240) -> None:
    """Return as soon as the condition holds. The bound is for what is stuck: a busy machine needs a part of it."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this did not happen in time"
        time.sleep(0.02)
