"""The fork server, from which the processes of runs are forked: it has imported torch, and has not touched a GPU.

If it is killed, by an out-of-memory kill for example, it is started again for the next run.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

from finetune.system.environment import child_environment
from finetune.system.signals import SIGNALS

MAX_TRIES, PAUSE_SECONDS = 5, 0.5  # to start a process; the server may be killed meanwhile


def start_server(preload: list[str]) -> ForkServerContext:
    """Start the fork server and return the context in which it forks processes. For the main thread."""
    # A parent may ignore SIGCHLD (a shell's `trap '' CHLD`). Then the system would not report the server's end, and
    # no other one could be started.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preload)
    _ensure_server()
    return context


def fork(context: ForkServerContext, target: Callable[..., Any], args: tuple[Any, ...], name: str) -> ForkServerProcess:
    """Start a process that calls `target`, and return it.

    Raises:
        OSError, EOFError: it can't be started in MAX_TRIES tries.
    """
    for left in reversed(range(MAX_TRIES)):
        process = context.Process(target=target, args=args, name=name)
        try:
            _ensure_server()
            process.start()
            break
        except (OSError, EOFError):
            if not left:
                raise
            time.sleep(PAUSE_SECONDS)  # a server that is being killed refuses before it has ended
    return process


def _ensure_server() -> None:
    """Start the fork server unless it runs."""
    # With signals blocked, which its children inherit: neither a Ctrl-C nor a `kill` of the process group ends the
    # server, or a run that has no handlers yet. The tracker is started first, as it unblocks signals.
    resource_tracker.ensure_running()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    before = os.environ.get("PYTHONPATH")
    # The server finds the modules to preload on this path, whatever the agent's working directory.
    os.environ["PYTHONPATH"] = child_environment()["PYTHONPATH"]
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
