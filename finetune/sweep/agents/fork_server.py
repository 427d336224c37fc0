"""The fork server, whose forks the processes of runs are: it has imported torch once and has never touched a GPU.

It can be killed like any other process (when memory runs out, say); it is started again when it is next needed.
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

TRIES, PAUSE_SECONDS = 5, 0.5  # at starting a process; the server may be killed in between


def start_server(preload: list[str]) -> ForkServerContext:
    """Start the fork server and return the context whose processes it makes. For the main thread."""
    # Started by a program that ignores it (a shell's `trap '' CHLD`), the system would keep from us whether the server
    # has ended, and none could be started in its place.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preload)
    _ensure_server()
    return context


def fork(context: ForkServerContext, target: Callable[..., Any], args: tuple[Any, ...], name: str) -> ForkServerProcess:
    """Start a process that calls `target`, and return it.

    Raises:
        OSError, EOFError: it can't be started, again and again.
    """
    for left in reversed(range(TRIES)):
        process = context.Process(target=target, args=args, name=name)
        try:
            _ensure_server()
            process.start()
            break
        except (OSError, EOFError):
            if not left:
                raise
            time.sleep(PAUSE_SECONDS)  # a server that is being killed refuses before it can be seen to be dead
    return process


def _ensure_server() -> None:
    """Have a fork server that runs; one that is there already stays."""
    # Started with signals blocked, which its children inherit: neither a Ctrl-C nor a `kill` of the whole process
    # group ends the server, or a run before it has its own handlers. The tracker comes first, as it unblocks them.
    resource_tracker.ensure_running()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    kept = os.environ.get("PYTHONPATH")
    # The server looks for the modules to preload on its own path, whatever directory the agent was started from.
    os.environ["PYTHONPATH"] = child_environment()["PYTHONPATH"]
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.environ.pop("PYTHONPATH")
        if kept is not None:
            os.environ["PYTHONPATH"] = kept
