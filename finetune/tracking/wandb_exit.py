"""The end of a program that has used W&B's client, within bounds.

The client's own process, wandb-core, is waited for when Python ends, however long that takes; one that hangs would keep
a command that has done its work from ending, for ever.
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
    """Have wandb-core killed if it is still there so long after the end of this program's main thread."""

    def watch() -> None:
        threading.main_thread().join()  # that is before what is registered with atexit, where the client waits
        time.sleep(seconds)
        _kill()

    threading.Thread(target=watch, name="end of W&B", daemon=True).start()


def end(seconds: float = END_SECONDS) -> None:
    """End wandb-core now; kill it if it takes longer. It may be gone: a signal to all processes of a job ends it."""
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
