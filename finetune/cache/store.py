"""Entries on disk that can be computed again: complete or absent, shared by all processes, within a budget.

An *entry* is a folder of `cache_folder()`/store: `about.json` and binary files. Its name is a hash of everything that
decides its content, so it can't go out of date. One process at a time writes it, as a *draft* NAME.part (see
entry_writer.py), which is renamed once it is complete. The draft of an interrupted process stays, and the next process
continues it. On a file system without locks each process writes its own draft, and the first complete one stays.

Entries can be deleted at any time, by `make_room` or by hand: a process that has opened a file keeps its content.
"""

import contextlib
import errno
import hashlib
import json
import logging
import math
import os
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from finetune.cache.entry_writer import (
    ABOUT,
    DELETED,
    PROGRESS,
    EntryWriter,
    checksums_match,
    delete_entry,
    is_complete,
    rename_for_deletion,
)
from finetune.errors import RunInterrupted, UserError
from finetune.system.atomic import tree_bytes
from finetune.system.environment import cache_folder
from finetune.system.locks import flock_works, hold

logger = logging.getLogger(__name__)

PART, LOCK = ".part", ".lock"

BUDGET_VARIABLE, DEFAULT_BUDGET = "FINETUNE_CACHE_GB", 20e9  # bytes; a view of 10,000 images takes 0.2 to 3 GB
MIN_FREE_SHARE, MAX_FREE = 0.10, 5e9  # this share of the disk, but at most these bytes, stays free
RECENT_SECONDS = 1800.0  # an entry used within this time is probably being read
LOCK_SECONDS = 60.0  # the store-wide lock is held for moments; if longer, the file system is at fault

_DISK_FULL_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_verified: set[tuple[Path, int]] = set()  # (folder, inode) of entries whose checksums this process has compared


@dataclass(frozen=True)
class FillCallbacks:
    """Called while an entry is filled: `interrupted` returns whether to stop; `on_progress` gets the share done.

    While another process fills the entry, `on_progress` gets None a few times a second.
    """

    on_progress: Callable[[float | None], None] = lambda share: None  # noqa: ARG005
    interrupted: Callable[[], bool] = lambda: False


NO_CALLBACKS = FillCallbacks()


def entries_folder() -> Path:
    """Return the folder of the entries, which may not exist yet."""
    return cache_folder() / "store"


def key_of(**fields: Any) -> str:
    """Return 16 hex digits that are equal for equal plain values (numbers, text, lists, mappings)."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def find_entry(name: str) -> Path | None:
    """Return the folder of a complete entry, or None; it then counts as used now."""
    entry = entries_folder() / name
    if not is_complete(entry):
        return None
    # Under the lock, so that it is not evicted before its use. A read-only store evicts nothing.
    with contextlib.suppress(OSError), _store_lock():
        os.utime(entry / ABOUT)
    return entry if is_complete(entry) else None


def find_verified(name: str) -> Path | None:
    """Return the folder of an entry whose checksums match, or None; deletes a damaged one.

    The first call in a process reads the complete entry, at the speed of the disk or 3 GB/s.

    Raises:
        OSError: it is being evicted, or it is damaged in a read-only store.
    """
    entry = entries_folder() / name
    if not entry.is_dir():
        return None
    identity = entry, entry.stat().st_ino
    if find_entry(name) is not None and (identity in _verified or checksums_match(entry)):
        _verified.add(identity)
        return entry
    if entry.is_dir():  # else it is being evicted
        logger.info(f"cache: {entry} is damaged, or an earlier version's: deleted, and rebuilt where needed")
        delete_entry(entry)
    return None


@contextlib.contextmanager
def writing_entry(name: str, callbacks: FillCallbacks = NO_CALLBACKS) -> Iterator[EntryWriter | None]:
    """Yield the writer of an entry, or None if another process has finished the entry meanwhile.

    Of several processes one writes, and the others wait here. After an exception the draft stays for the next writer;
    only a full disk has it deleted.

    Raises:
        RunInterrupted: `callbacks.interrupted` returned true.
        OSError: the folder can't be written, or the disk is full.
    """
    entries_folder().mkdir(parents=True, exist_ok=True)
    with _entry_lock(name, callbacks):
        if find_entry(name) is not None:
            yield None
            return
        delete_entry(entries_folder() / name)  # truncated, or without checksums
        process = "" if flock_works(entries_folder()) else f".{uuid.uuid4().hex[:8]}"
        writer = EntryWriter(entries_folder() / f"{name}{process}{PART}", entries_folder() / name)
        try:
            yield writer
        except OSError as error:
            if error.errno in _DISK_FULL_ERRORS:
                writer.discard()
            raise
        finally:
            writer.close()


def budget_bytes() -> int:
    """Return the maximum size of the store: $FINETUNE_CACHE_GB (default 20), or less if the disk can't spare it.

    Raises:
        UserError: the variable is no number.
    """
    gigabytes = os.environ.get(BUDGET_VARIABLE, "")
    try:
        budget = float(gigabytes) * 1e9 if gigabytes else DEFAULT_BUDGET
    except ValueError:
        budget = math.nan
    if not 0 <= budget < math.inf:
        raise UserError(
            f"{BUDGET_VARIABLE}: {gigabytes!r} is no number of gigabytes; give one such as 50, or 0 for no cache"
        )
    existing = next(path for path in (entries_folder(), *entries_folder().absolute().parents) if path.exists())
    disk = shutil.disk_usage(existing)
    spare = used_bytes() + disk.free - min(MIN_FREE_SHARE * disk.total, MAX_FREE)
    return int(max(0, min(budget, spare)))


def used_bytes() -> int:
    """Return the size of the store in bytes."""
    return tree_bytes(entries_folder())


def make_room(needed: int, names: Collection[str] = ()) -> bool:
    """Evict least recently used entries until `needed` more bytes fit; return False, and evict none, if they can't.

    Entries used in the last half hour stay, and so do drafts with a live writer. Drafts count by their present size:
    several writers at once can exceed the budget together until the next call.

    Args:
        needed: bytes of the complete entries, drafts included.
        names: the entries that the room is for; their drafts stay.

    Raises:
        UserError: see `budget_bytes`.
        OSError: the folder can't be written.
    """
    entries_folder().mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as locks:
        locks.enter_context(_store_lock())
        deleted = _half_deleted()
        drafts = {entries_folder() / f"{name}{PART}" for name in names}
        excess = needed - budget_bytes() + used_bytes() - sum(map(tree_bytes, [*deleted, *drafts]))
        evicted = []
        for path in sorted(set(_evictable(locks)) - drafts, key=_last_use):
            if excess > 0:
                evicted.append(path)
                excess -= tree_bytes(path)
        if excess > 0:
            return False
        deleted += [rename_for_deletion(path) for path in evicted]
    for path in deleted:  # without the lock: this can take a while
        shutil.rmtree(path, ignore_errors=True)
    return True


def evictable() -> list[Path]:
    """Return the entries and drafts that `make_room` could delete now, the longest unused first."""
    if not entries_folder().is_dir():
        return []
    with contextlib.ExitStack() as locks:
        locks.enter_context(_store_lock())
        return [*_half_deleted(), *sorted(_evictable(locks), key=_last_use)]


def _half_deleted() -> list[Path]:
    """Return the folders whose deletion a process began and did not finish."""
    return list(entries_folder().glob(f"*{DELETED}"))


def _evictable(locks: contextlib.ExitStack) -> Iterator[Path]:
    """Yield entries not used recently, and drafts without a live writer; `locks` then holds the locks of the drafts."""
    for path in entries_folder().iterdir():
        if path.suffix == PART and flock_works(entries_folder()):
            with contextlib.suppress(Timeout):
                locks.enter_context(hold(entries_folder() / f"{path.stem}{LOCK}", max_seconds=0))
                yield path
        elif path.is_dir() and path.suffix != DELETED and time.time() - _last_use(path) > RECENT_SECONDS:
            yield path


def _last_use(path: Path) -> float:
    """Return when an entry was last used, or a draft last noted, in seconds since 1970; 0 if unknown."""
    marks = [path / name for name in (ABOUT, PROGRESS) if (path / name).exists()]
    return max((mark.stat().st_mtime for mark in marks), default=0.0)


def _store_lock() -> contextlib.AbstractContextManager[Any]:
    if not flock_works(entries_folder()):
        return contextlib.nullcontext()
    return hold(entries_folder() / f"store{LOCK}", max_seconds=LOCK_SECONDS)


@contextlib.contextmanager
def _entry_lock(name: str, callbacks: FillCallbacks) -> Iterator[None]:
    """Hold the lock of an entry's draft; the system releases it if its holder dies."""
    if not flock_works(entries_folder()):
        yield
        return

    def wait() -> None:
        if callbacks.interrupted():
            raise RunInterrupted("stopped while another process was filling the cache")
        callbacks.on_progress(None)

    with hold(entries_folder() / f"{name}{LOCK}", wait):
        yield
