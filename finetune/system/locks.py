"""Locks between processes, by the system where the file system has them, else by the existence of a file.

Some network file systems refuse `flock`, and some take it and do nothing. Nothing that results rest on needs a lock:
runs are claimed (see claim.py). Locks save work that would be done twice.
"""

import errno
import fcntl
import os
from functools import cache
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock

from finetune.system.atomic import temporary_for

_HELD = {errno.EAGAIN, errno.EACCES}


def lock(path: Path) -> BaseFileLock:
    """Return a lock that one process at a time can hold; the folder must exist."""
    return FileLock(path) if flock_works(path.parent) else SoftFileLock(path.with_name(f"{path.name}ed"))


def flock_works(folder: Path) -> bool:
    """Whether locks of the system keep processes out in this folder."""
    return _probe_flock(folder.stat().st_dev, folder)


@cache
def _probe_flock(device: int, folder: Path) -> bool:  # noqa: ARG001  (one answer for each)
    probe = temporary_for(folder / "lock")
    first = second = -1
    try:
        first = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        second = os.open(probe, os.O_RDWR)
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except PermissionError:
        return True  # what can't be written to needs no lock; whoever tries is told
    except OSError as error:
        return error.errno in (errno.EROFS, errno.ENOSPC, errno.EDQUOT)
    else:
        return not _can_hold(second)
    finally:
        for descriptor in (first, second):
            if descriptor >= 0:
                os.close(descriptor)
        probe.unlink(missing_ok=True)


def _can_hold(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _HELD
    return True
