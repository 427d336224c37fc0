"""Locks between processes: by `flock` where the file system supports it, otherwise by the existence of a file.

Some network file systems refuse `flock`, and some accept it and do nothing. No result depends on a lock: runs are
claimed (see rundir/claim.py). Locks save work that would be done twice.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from finetune.system.atomic import temporary_for

POLL_SECONDS = 0.2
_HELD_ERRNOS = {errno.EAGAIN, errno.EACCES}


def lock(path: Path) -> BaseFileLock:
    """Return a lock that one process at a time can hold; the folder must exist."""
    return FileLock(path) if flock_works(path.parent) else SoftFileLock(path.with_name(f"{path.name}ed"))


@contextlib.contextmanager
def hold(path: Path, on_wait: Callable[[], None] = lambda: None, max_seconds: float | None = None) -> Iterator[None]:
    """Hold the lock `path` within the block; the system releases it if this process dies.

    Args:
        on_wait: called again and again while another process holds the lock; what it raises ends the wait.
        max_seconds: of waiting, None for no limit.

    Raises:
        Timeout: another process still holds the lock.
    """
    held = lock(path)
    end = None if max_seconds is None else time.monotonic() + max_seconds
    while True:
        try:
            held.acquire(timeout=0)
            break
        except Timeout:
            if end is not None and time.monotonic() >= end:
                raise
        on_wait()
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        held.release()


def flock_works(folder: Path) -> bool:
    """Whether `flock` keeps other processes out in this folder."""
    return _probe_flock(folder.stat().st_dev, folder)


@cache
def _probe_flock(device: int, folder: Path) -> bool:  # noqa: ARG001  (one result per device)
    probe = temporary_for(folder / "lock")
    first = second = -1
    try:
        first = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        second = os.open(probe, os.O_RDWR)
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except PermissionError:
        return True  # a read-only folder needs no lock; the write itself fails with a message
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
        return error.errno not in _HELD_ERRNOS
    return True
