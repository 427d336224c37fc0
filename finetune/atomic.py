"""Files that are written wholly or not at all, whatever happens meanwhile, and names that only one of several gets."""

import contextlib
import errno
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from finetune.writing import explained

_NO_LINKS = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}

_guards: dict[str, Callable[[], None]] = {}  # folder -> what is to be asked before its files change


@contextlib.contextmanager
def guarded(folder: Path, check: Callable[[], None]) -> Iterator[None]:
    """Have this process call `check` before it puts a file into `folder`; what that raises keeps the old file."""
    key = os.path.abspath(folder)  # noqa: PTH100  (links need not be followed)
    _guards[key] = check
    try:
        yield
    finally:
        del _guards[key]


def check_guard(path: Path) -> None:
    _guards.get(os.path.abspath(path.parent), lambda: None)()  # noqa: PTH100


def temporary_for(path: Path) -> Path:
    """Return a name beside `path` for what is to become that file (see leftovers.py)."""
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
        with explained(path):
            yield temporary
            _sync(temporary)
            check_guard(path)
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):  # of a disk that can't be written to: what led to this is told
            temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def create_once(path: Path, text: str) -> bool:
    """Create `path` with this text and return True, or False if it is there: of several callers only one gets True.

    A hard link fails where the name exists, on every local file system and on NFS, and nobody sees half a file. Where
    there are none (FAT, some network file systems), the name is taken first and the text follows, so that the file is
    empty for a moment.
    """
    draft = temporary_for(path)
    try:
        draft.write_text(text, encoding="utf-8")
        _sync(draft)
        return _name_once(draft, path)
    except FileNotFoundError:  # whoever has got `path` has tidied up
        if not path.exists():
            raise
        return False
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def _name_once(draft: Path, path: Path) -> bool:
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
