"""Atomic file replacement and exclusive file creation, safe on NFS; errors of disks, and the sizes they speak of."""

import contextlib
import errno
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from finetune.errors import EXIT_FAILED, DiskFullError, UserError

STALE_SECONDS = 120.0  # nobody owns a temporary file that was not written to for so long
CLOCK_TRIES = 3

DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
# A disk that is full, over its quota, read-only, failing, or not writable for this user.
WRITE_ERRNOS = DISK_FULL_ERRNOS | {errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.ESTALE}

_NO_LINK_ERRNOS = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp")
_guards: dict[str, Callable[[], None]] = {}  # folder -> called before one of its files changes


@contextlib.contextmanager
def write_guard(folder: Path, check: Callable[[], None]) -> Iterator[None]:
    """Within the block, call `check` before this process changes a file in `folder`; if it raises, the file stays."""
    key = os.path.abspath(folder)  # noqa: PTH100  (links need not be followed)
    _guards[key] = check
    try:
        yield
    finally:
        del _guards[key]


def check_write_guard(path: Path) -> None:
    """Call the check of the guarded folder that `path` is in, if there is one."""
    _guards.get(os.path.abspath(path.parent), lambda: None)()  # noqa: PTH100


def delete(path: Path) -> None:
    """Delete a file, if it exists, unless the guard of its folder forbids it."""
    check_write_guard(path)
    path.unlink(missing_ok=True)


def temporary_for(path: Path) -> Path:
    """Return a hidden name beside `path` under which its new content can be written."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it at the end of the block, unless the block raises.

    A reader, or a crash at any moment, sees the old file or the new one, never a part.

    Raises:
        WriteError: the file can't be written, for example because the disk is full.
    """
    temporary = temporary_for(path)
    try:
        with raising_write_error(path):
            yield temporary
            _sync(temporary)
            check_write_guard(path)
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):  # on a read-only disk; the error that led here is the one to report
            temporary.unlink(missing_ok=True)


def write_atomic(path: Path, text: str) -> None:
    """Replace the content of `path` by `text`, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def create_exclusive(path: Path, text: str) -> bool:
    """Create `path` with this text and return True, or False if it exists: of several callers only one gets True.

    A hard link fails where the name exists, on every local file system and on NFS, and nobody sees half a file. File
    systems without hard links (FAT, some network file systems) create the name first and fill it afterwards, so that
    the file is empty for a moment.
    """
    draft = temporary_for(path)
    try:
        draft.write_text(text, encoding="utf-8")
        _sync(draft)
        return _link_exclusive(draft, path)
    except FileNotFoundError:  # the caller that got `path` deleted the temporary files of others
        if not path.exists():
            raise
        return False
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def _link_exclusive(draft: Path, path: Path) -> bool:
    """Rename `draft` to `path` unless that exists, and return whether it was renamed."""
    try:
        os.link(draft, path)
        return True
    except OSError as error:
        if draft.stat().st_nlink == 2:  # NFS repeats a request whose answer was lost, and finds its own link
            return True
        if path.exists():
            return False
        if error.errno not in _NO_LINK_ERRNOS:
            raise
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    draft.replace(path)
    return True


def delete_stale_temporaries(folder: Path, is_ours: Callable[[str], bool] = lambda _: False) -> None:
    """Delete temporary files in `folder` that were not written to for STALE_SECONDS: their processes are dead.

    Args:
        is_ours: file name -> whether no other process may be writing that file, so that its age does not matter.
    """
    for path in folder.glob(".*.tmp"):
        match = _TEMPORARY.fullmatch(path.name)
        with contextlib.suppress(OSError):  # another process was faster, or the folder is read-only
            if match is None or not (is_ours(match[1]) or seconds_since_write(path) >= STALE_SECONDS):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def seconds_since_write(file: Path) -> float:
    """Return a file's age by the file system's own clock, so that the clocks of machines need not agree.

    Raises:
        OSError: the file is gone.
    """
    return _file_server_time(file) - file.stat().st_mtime


def _file_server_time(file: Path) -> float:
    """Return the modification time, in seconds, of a new file beside this one, or this machine's time."""
    for _ in range(CLOCK_TRIES):
        probe = temporary_for(file.with_name("probe"))
        try:
            with contextlib.suppress(OSError):  # a full disk has no room for the byte, but the empty file has a time
                probe.write_bytes(b"\n")
            return probe.stat().st_mtime
        except OSError:  # a read-only folder, or another process deleted the file
            continue
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()
    return time.time()


class WriteError(OSError):
    """A file can't be written; the message names it, and the room that it needs and that there is.

    Attributes:
        path: the file.
        needed_bytes: its size, None where that is unknown.
        free_bytes: room on its disk when the write failed, None where that is unknown.
    """

    exit_code = EXIT_FAILED
    cause = "disk"

    def __init__(self, number: int, reason: str, path: Path, needed_bytes: int | None) -> None:
        super().__init__(number, reason, str(path))
        self.path, self.reason, self.needed_bytes, self.free_bytes = path, reason, needed_bytes, _free_bytes(path)

    def __str__(self) -> str:
        sizes = [] if self.needed_bytes is None else [f"{format_bytes(self.needed_bytes)} needed"]
        sizes += [] if self.free_bytes is None else [f"{format_bytes(self.free_bytes)} free"]
        advice = "make room there" if self.errno in DISK_FULL_ERRNOS else "check that it can be written to"
        return f"{self.path} can't be written ({'; '.join([self.reason, ', '.join(sizes)])}): {advice}"


@contextlib.contextmanager
def raising_write_error(path: Path, needed_bytes: int | None = None) -> Iterator[None]:
    """Within the block, turn an OSError that keeps `path` from being written into a WriteError.

    Args:
        needed_bytes: its size, if known.
    """
    try:
        yield
    except WriteError as error:
        if error.path == path and error.needed_bytes is None:
            error.needed_bytes = needed_bytes
        raise
    except OSError as error:
        is_about_path = error.filename is None or str(error.filename).startswith(str(path.parent))
        if error.errno not in WRITE_ERRNOS or not is_about_path:
            raise
        raise WriteError(error.errno, error.strerror or str(error), path, needed_bytes) from error


@contextlib.contextmanager
def raising_user_error(path: Path, kind: type[UserError], hint: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Within the block, turn an OSError into a DiskFullError, or for other reasons `kind`, that names `path`.

    Args:
        hint: returns the end of the message.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno not in DISK_FULL_ERRNOS:
            raise kind(f"{path} can't be written ({reason}){hint()}") from error
        needed_bytes = error.needed_bytes if isinstance(error, WriteError) else None
        raise DiskFullError(f"{WriteError(error.errno, reason, path, needed_bytes)}{hint()}") from error


def check_free_space(folder: Path, needed_bytes: float, spare_bytes: float, purpose: str) -> None:
    """Raise DiskFullError if a file of this size does not fit on the disk of `folder`, with some room to spare."""
    free = shutil.disk_usage(folder).free
    if needed_bytes > free - spare_bytes:
        raise DiskFullError(
            f"{purpose} needs {format_bytes(needed_bytes)} (and {format_bytes(spare_bytes)} to spare), but {folder} "
            f"has {format_bytes(free)} free. Make room there"
        )


def format_bytes(count: float) -> str:
    """Return a size as text, such as `3.2 GB`, `81 MB` or `4 kB` (1e3 bytes)."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def tree_bytes(folder: Path) -> int:
    """Return the size of all files below a folder; links, and files deleted meanwhile, do not count."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent) / name
            with contextlib.suppress(OSError):
                total += 0 if path.is_symlink() else path.stat().st_size
    return total


def _free_bytes(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        return shutil.disk_usage(next(parent for parent in path.absolute().parents if parent.exists())).free
    return None
