"""Where the project lies, where it keeps what it can make again, and the environment of processes it starts."""

import os
from pathlib import Path

import platformdirs

ROOT = Path(__file__).parents[2]  # the folder that holds agent.py, finetune/ and analysis/


def cache_folder() -> Path:
    """Return the folder for what the project can make again: $FINETUNE_CACHE, or the user's cache directory."""
    given = os.environ.get("FINETUNE_CACHE")
    return Path(given) if given else platformdirs.user_cache_path("finetune-sweeps")


def python_path() -> str:
    """Return PYTHONPATH for a child process: the project first, whatever directory this process was started from."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def cores() -> int:
    """Return the cores this process may use: a batch system gives it less than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
