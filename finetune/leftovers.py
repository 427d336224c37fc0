"""What killed processes have left of files in the making, and what time the file system has.

`replacing` and others write to `.NAME.xxxxxxxx.tmp` first. Nobody reads that; it is only to be deleted one day.
"""

import contextlib
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from finetune.atomic import temporary_for

TRIES = 3  # at asking for the time
STALE_SECONDS = 120.0  # what has not been written to for this long belongs to nobody

_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp")


def clean(folder: Path, at_once: Callable[[str], bool] = lambda _: False) -> None:
    """Delete what was to become another file of `folder` and has not been written to for STALE_SECONDS.

    Args:
        at_once: a file's name -> whether nobody but this process may be writing that one now.
    """
    for path in folder.glob(".*.tmp"):
        match = _TEMPORARY.fullmatch(path.name)
        with contextlib.suppress(OSError):  # another process was faster, or the folder can only be read
            if match is None or not (at_once(match[1]) or silent_seconds(path) >= STALE_SECONDS):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def silent_seconds(file: Path) -> float:
    """Return how long ago a file was written by the file system's own clock, so that machines' clocks need not agree.

    Raises:
        OSError: the file is gone.
    """
    return _time_there(file) - file.stat().st_mtime


def _time_there(file: Path) -> float:
    """Return the time, in seconds, that a file beside this one gets; this machine's where none can be made there."""
    for _ in range(TRIES):
        probe = temporary_for(file.with_name("probe"))
        try:
            with contextlib.suppress(OSError):  # a full disk has no room for the byte; the name has its time, too
                probe.write_bytes(b"\n")
            return probe.stat().st_mtime
        except OSError:  # a folder that can only be read, or somebody has cleaned up
            continue
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()
    return time.time()
