"""Files that are written wholly or not at all, whatever happens meanwhile, and names that only one of several gets."""

import contextlib
import errno
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from finetune.errors import EXIT_FAILED

_NO_LINKS = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}

_guards: dict[str, Callable[[], None]] = {}  # folder -> what is to be asked before its files change


@contextlib.contextmanager
def write_guard(folder: Path, check: Callable[[], None]) -> Iterator[None]:
    """Have this process call `check` before it puts a file into `folder`; what that raises keeps the old file."""
    key = os.path.abspath(folder)  # noqa: PTH100  (links need not be followed)
    _guards[key] = check
    try:
        yield
    finally:
        del _guards[key]


def check_write_guard(path: Path) -> None:
    _guards.get(os.path.abspath(path.parent), lambda: None)()  # noqa: PTH100


def temporary_for(path: Path) -> Path:
    """Return a name beside `path` for what is to become that file (see atomic.py)."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place if all goes well.

    A reader, or a crash at any moment, sees the old file or the new one, never a part.

    Raises:
        WriteError: the disk is full, say.
    """
    temporary = temporary_for(path)
    try:
        with raising_write_error(path):
            yield temporary
            _sync(temporary)
            check_write_guard(path)
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):  # of a disk that can't be written to: what led to this is told
            temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def create_exclusive(path: Path, text: str) -> bool:
    """Create `path` with this text and return True, or False if it is there: of several callers only one gets True.

    A hard link fails where the name exists, on every local file system and on NFS, and nobody sees half a file. Where
    there are none (FAT, some network file systems), the name is taken first and the text follows, so that the file is
    empty for a moment.
    """
    draft = temporary_for(path)
    try:
        draft.write_text(text, encoding="utf-8")
        _sync(draft)
        return _link_exclusive(draft, path)
    except FileNotFoundError:  # whoever has got `path` has tidied up
        if not path.exists():
            raise
        return False
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def _link_exclusive(draft: Path, path: Path) -> bool:
    """Give a file its name if that is free, and return whether it was."""
    try:
        os.link(draft, path)
        return True
    except OSError as error:
        if draft.stat().st_nlink == 2:  # NFS repeats a request whose answer was lost, and finds its own link
            return True
        if path.exists():
            return False
        if error.errno not in _NO_LINKS:
            raise
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    draft.replace(path)
    return True


def write_atomic(path: Path, text: str) -> None:
    """Write `text` to `path`, wholly or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


TRIES = 3  # at asking for the time


STALE_SECONDS = 120.0  # what has not been written to for this long belongs to nobody


_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp")


def delete_stale_temporaries(folder: Path, at_once: Callable[[str], bool] = lambda _: False) -> None:
    """Delete what was to become another file of `folder` and has not been written to for STALE_SECONDS.

    Args:
        at_once: a file's name -> whether nobody but this process may be writing that one now.
    """
    for path in folder.glob(".*.tmp"):
        match = _TEMPORARY.fullmatch(path.name)
        with contextlib.suppress(OSError):  # another process was faster, or the folder can only be read
            if match is None or not (at_once(match[1]) or seconds_since_write(path) >= STALE_SECONDS):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def seconds_since_write(file: Path) -> float:
    """Return how long ago a file was written by the file system's own clock, so that machines' clocks need not agree.

    Raises:
        OSError: the file is gone.
    """
    return _file_server_time(file) - file.stat().st_mtime


def _file_server_time(file: Path) -> float:
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


# A disk that is full, over its quota, read-only, failing, or not ours to write to.
WRITE_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.ESTALE}
)


DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})


class WriteError(OSError):
    """A file can't be written; the message names it, and says how much room it needs and there is. Exit code 1.

    Attributes:
        path: the file that was to be written.
        wanted: bytes that it needs, None where that is not known.
        free: bytes on its disk as the write failed, None where that can't be told.
    """

    exit_code = EXIT_FAILED
    cause = "disk"

    def __init__(self, number: int, reason: str, path: Path, wanted: int | None) -> None:
        super().__init__(number, reason, str(path))
        self.path, self.reason, self.wanted, self.free = path, reason, wanted, _free_bytes(path)

    def __str__(self) -> str:
        needs = [] if self.wanted is None else [f"{format_bytes(self.wanted)} wanted"]
        needs += [] if self.free is None else [f"{format_bytes(self.free)} free"]
        mend = "make room there" if self.errno in DISK_FULL_ERRNOS else "see that it can be written to"
        return f"{self.path} can't be written ({'; '.join([self.reason, ', '.join(needs)])}): {mend}"


@contextlib.contextmanager
def raising_write_error(path: Path, wanted: int | None = None) -> Iterator[None]:
    """Have what keeps `path` from being written, in this block, come out as a WriteError.

    Args:
        wanted: bytes that it needs, where that is known.

    Raises:
        WriteError: the disk is full, say. Other errors come through as they are.
    """
    try:
        yield
    except WriteError as error:
        if error.path == path and error.wanted is None:
            error.wanted = wanted
        raise
    except OSError as error:
        beside = error.filename is None or str(error.filename).startswith(str(path.parent))
        if error.errno not in WRITE_ERRNOS or not beside:
            raise
        raise WriteError(error.errno, error.strerror or str(error), path, wanted) from error


def format_bytes(count: float) -> str:
    """Return bytes in words, such as `3.2 GB`, `81 MB` or `4 kB` (1e3 bytes)."""
    return (
        f"{count / 1e9:.1f} GB"
        if count >= 1e9
        else f"{count / 1e6:.0f} MB"
        if count >= 1e6
        else f"{count / 1e3:.0f} kB"
    )


def _free_bytes(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        return shutil.disk_usage(next(place for place in path.absolute().parents if place.exists())).free
    return None
