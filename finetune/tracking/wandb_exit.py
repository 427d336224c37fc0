"""Limits how long the end of a program waits for W&B's client.

When Python ends, the client waits for its own process, wandb-core, however long that takes. If that process hangs, a
command that has done its work would never end.
"""

import contextlib
import threading
import time
from functools import cache

import psutil

END_SECONDS = 30.0
CORE = "wandb-core"


@cache
def bound_exit(seconds: float = END_SECONDS) -> None:
    """Kill wandb-core if it still runs so long after the end of this program's main thread."""

    def watch() -> None:
        threading.main_thread().join()  # before the functions registered with atexit, in which the client waits
        time.sleep(seconds)
        _kill()

    threading.Thread(target=watch, name="end of W&B", daemon=True).start()


def end(seconds: float = END_SECONDS) -> None:
    """End wandb-core now; kill it if that takes longer. It may be gone already, by a signal to a whole batch job."""
    import wandb

    timer = threading.Timer(seconds, _kill)
    timer.daemon = True
    timer.start()
    try:
        with contextlib.suppress(Exception):
            wandb.teardown()
    finally:
        timer.cancel()


def _kill() -> None:
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                if child.name() == CORE:
                    child.kill()
