"""Files that can't be written: which one, what it needs and what there is, in one sentence."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

# A disk that is full, over its quota, read-only, failing, or not ours to write to.
FAULTS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.ESTALE}
)
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class WriteError(OSError):
    """A file can't be written; the message names it, and says how much room it needs and there is. Exit code 1.

    Attributes:
        path: the file that was to be written.
        wanted: bytes that it needs, None where that is not known.
        free: bytes on its disk as the write failed, None where that can't be told.
    """

    def __init__(self, number: int, reason: str, path: Path, wanted: int | None) -> None:
        super().__init__(number, reason, str(path))
        self.path, self.reason, self.wanted, self.free = path, reason, wanted, _free(path)

    def __str__(self) -> str:
        needs = [] if self.wanted is None else [f"{in_words(self.wanted)} wanted"]
        needs += [] if self.free is None else [f"{in_words(self.free)} free"]
        mend = "make room there" if self.errno in FULL else "see that it can be written to"
        return f"{self.path} can't be written ({'; '.join([self.reason, ', '.join(needs)])}): {mend}"


@contextlib.contextmanager
def explained(path: Path, wanted: int | None = None) -> Iterator[None]:
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
        if error.errno not in FAULTS or not beside:
            raise
        raise WriteError(error.errno, error.strerror or str(error), path, wanted) from error


def in_words(count: float) -> str:
    """Return bytes in words, such as `3.2 GB`, `81 MB` or `4 kB` (1e3 bytes)."""
    return (
        f"{count / 1e9:.1f} GB"
        if count >= 1e9
        else f"{count / 1e6:.0f} MB"
        if count >= 1e6
        else f"{count / 1e3:.0f} kB"
    )


def _free(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        return shutil.disk_usage(next(place for place in path.absolute().parents if place.exists())).free
    return None
