"""What can be computed again, kept on disk: whole or not there, shared by all processes and runs, bounded.

An *entry* is a folder of `cache_folder()`/store: `about.json` and binary files, named by a hash of all that decides
its content, so that nothing in it can go out of date. It is made as NAME.part (see entry_writer.py), by one process
at a
time, and renamed once it is whole. What an interrupted process has made is kept, and the next one goes on from there.

Where the file system has no locks, each process makes a draft of its own, and the first that is whole is kept.

Everything in here can be deleted at any time, by `make_room` or by hand: whoever has mapped a file keeps its content.
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
    DELETED_PREFIX,
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
FREE_SHARE, MOST_FREE = 0.10, 5e9  # of the disk, and bytes: so much stays free, whatever the budget
RECENT_SECONDS = 1800.0  # an entry used since then is probably being read

LOCK_SECONDS = 60.0  # the store-wide lock is held for moments; if not, something is wrong with the file system
_looked_at: set[tuple[Path, int]] = set()  # entries that this process has compared with their checksums
_DISK_FULL_ENTRIES = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class FillCallbacks:
    """Callbacks of whoever waits until an entry is filled.

    Attributes:
        on_progress: called with the share that is done; with None, a few times a second, while another process fills.
        interrupted: polled while filling and while waiting; true stops that.
    """

    on_progress: Callable[[float | None], None] = lambda share: None  # noqa: ARG005
    interrupted: Callable[[], bool] = lambda: False


NO_CALLBACKS = FillCallbacks()


def entries_folder() -> Path:
    """Return the folder that holds the entries; it need not exist yet."""
    return cache_folder() / "store"


def key_of(**what: Any) -> str:
    """Return 16 hex digits for plain values (numbers, text, lists, mappings): equal values, equal key."""
    text = json.dumps(what, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def find_entry(name: str) -> Path | None:
    """Return the folder of a whole entry, which then counts as used now, or None."""
    entry = entries_folder() / name
    if not is_complete(entry):
        return None
    # Under the lock, so that it is not evicted between this and its use. In a store that can only be read, nothing is.
    with contextlib.suppress(OSError), _store_lock():
        os.utime(entry / ABOUT)
    return entry if is_complete(entry) else None


def find_verified(name: str) -> Path | None:
    """Return the folder of an entry whose bytes are those that were written, or None; a damaged one is removed.

    All of it is read at the first call in a process, at the speed of the disk or 3 GB/s.

    Args:

    Raises:
        OSError: it is evicted at this moment, or damaged where nothing can be written.
    """
    entry = entries_folder() / name
    if not entry.is_dir():
        return None
    this = entry, entry.stat().st_ino
    if find_entry(name) is not None and (this in _looked_at or checksums_match(entry)):
        _looked_at.add(this)
        return entry
    if entry.is_dir():  # else evicted at this moment
        logger.info(f"cache: {entry} is damaged, or an earlier version's: deleted, and rebuilt where needed")
        delete_entry([rename_for_deletion(entry)])
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
        delete_entry(
            [rename_for_deletion(entries_folder() / name)]
        )  # not whole: cut short, or an earlier version's, without checksums
        own = "" if flock_works(entries_folder()) else f".{uuid.uuid4().hex[:8]}"
        draft = EntryWriter(entries_folder() / f"{name}{own}{PART}", entries_folder() / name)
        try:
            yield draft
        except OSError as error:
            if error.errno in _DISK_FULL_ENTRIES:
                draft.discard()
            raise
        finally:
            draft.close()


def budget_bytes() -> int:
    """Return how much the store may take: $FINETUNE_CACHE_GB (1 GB = 1e9 bytes) or 20 GB, and what the disk can spare.

    Raises:
        UserError: the variable is no number.
    """
    given = os.environ.get(BUDGET_VARIABLE, "")
    try:
        budget = float(given) * 1e9 if given else DEFAULT_BUDGET
    except ValueError:
        budget = math.nan
    if not 0 <= budget < math.inf:
        raise UserError(
            f"{BUDGET_VARIABLE}: {given!r} is no number of gigabytes; give one such as 50, or 0 for no cache"
        )
    existing = next(path for path in (entries_folder(), *entries_folder().absolute().parents) if path.exists())
    disk = shutil.disk_usage(existing)
    spare = used_bytes() + disk.free - min(FREE_SHARE * disk.total, MOST_FREE)
    return int(max(0, min(budget, spare)))


def used_bytes() -> int:
    """Return what the store takes, in bytes."""
    return tree_bytes(entries_folder())


def make_room(needed: int, names: Collection[str] = ()) -> bool:
    """Evict least recently used entries until `needed` more bytes fit, and return whether they do; if not, evict none.

    Entries used in the last half hour stay, and so do drafts that a process is filling. Drafts are counted as they
    are: several that are filled at once can go beyond the budget together, up to the next call.

    Args:
        needed: bytes.
        names: the entries that the room is for. What interrupted processes have made of them stays, and is part of
            `needed`.

    Raises:
        UserError: see `budget_bytes`.
        OSError: the folder can't be written.
    """
    entries_folder().mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        held.enter_context(_store_lock())
        gone = list(entries_folder().glob(f"*{DELETED_PREFIX}"))  # of a process that ended before it had deleted them
        own = {entries_folder() / f"{name}{PART}" for name in names}
        excess = needed - budget_bytes() + used_bytes() - sum(map(tree_bytes, [*gone, *own]))
        chosen = []
        for path in sorted(set(_evictable(held)) - own, key=_last_use):
            if excess > 0:
                chosen.append(path)
                excess -= tree_bytes(path)
        if excess > 0:
            return False
        gone += [rename_for_deletion(path) for path in chosen]
    delete_entry(gone)  # without the lock: this can take a while
    return True


def evictable() -> list[Path]:
    """Return the entries and drafts that could be deleted now, the longest unused first; see `make_room`."""
    if not entries_folder().is_dir():
        return []
    with contextlib.ExitStack() as held:
        held.enter_context(_store_lock())
        gone = list(entries_folder().glob(f"*{DELETED_PREFIX}"))
        return [*gone, *sorted(set(_evictable(held)) - set(gone), key=_last_use)]


def _evictable(held: contextlib.ExitStack) -> Iterator[Path]:
    """Yield entries that were not used recently, and drafts that nobody fills, whose locks `held` then holds."""
    for path in entries_folder().iterdir():
        if path.suffix == PART and flock_works(entries_folder()):
            with contextlib.suppress(Timeout):
                held.enter_context(hold(entries_folder() / f"{path.stem}{LOCK}", max_seconds=0))
                yield path
        elif path.is_dir() and path.suffix != DELETED_PREFIX and time.time() - _last_use(path) > RECENT_SECONDS:
            yield path


def _last_use(path: Path) -> float:
    """Return when an entry was last used, or a draft last noted, in seconds since 1970; 0 where that is unknown."""
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
