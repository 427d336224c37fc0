"""A disk that fails at a chosen write: for tests of what is left when there is no room, on every system."""

import builtins
import contextlib
import errno
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# From the failing write on nothing can be written any more, up to the end of the test; EIO hits one write alone.
LASTING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
WRITES = set("wax+")


class FailingDisk:
    """Counts what is written below some folders, and fails at one of these writes.

    A write is anything that can need room: making or opening a file to write to, flushing a buffer into it, syncing,
    renaming, linking, making a folder, setting a time.

    Attributes:
        writes: what was written so far, such as `write last.pt`.
        hit: the write that failed, None before.
    """

    def __init__(self, *roots: Path) -> None:
        self._roots = [str(root.resolve()) for root in roots]
        self._at: int | None = None
        self._code = errno.ENOSPC
        self._names: dict[int, str] = {}  # of open files
        self.writes: list[str] = []
        self.hit: str | None = None

    def arm(self, at: int | None, code: int = errno.ENOSPC) -> None:
        """Fail at write number `at` from now on, counted from 0; None for never."""
        self._at, self._code, self.writes, self.hit = at, code, [], None

    def holds(self, path: Any) -> bool:
        """Whether a path lies below the folders that are watched."""
        if not isinstance(path, str | os.PathLike):
            return False
        whole = os.path.realpath(os.fspath(path))
        return any(whole == root or whole.startswith(root + os.sep) for root in self._roots)

    def check(self, what: str, path: Any) -> None:
        """Count a write, and raise OSError if it is the one to fail, or comes after it on a disk that stays full."""
        number = len(self.writes)
        self.writes.append(f"{what} {Path(path).name}")
        if self._at is None or number < self._at:
            return
        if number == self._at or self._code in LASTING:
            self.hit = self.hit or self.writes[-1]
            raise OSError(self._code, os.strerror(self._code))  # without a name, as the system's own of a write

    def open(self, file: Any, mode: str = "r", buffering: int = -1, *args: Any, **named: Any) -> Any:
        """Stand in for `open`."""
        if not WRITES & set(mode) or not self.holds(file):
            other = _OPEN(file, mode, buffering, *args, **named)
            self._names.pop(other.fileno(), None)  # of a file that had this number, and is closed
            return other
        self.check("open", file)
        raw = _Raw(file, mode.replace("b", "").replace("t", ""), disk=self)
        self._names[raw.fileno()] = os.fspath(file)
        if buffering == 0:
            return raw
        size = buffering if buffering > 1 else 2**20
        buffered = io.BufferedRandom(raw, size) if "+" in mode else io.BufferedWriter(raw, size)
        if "b" in mode:
            return buffered
        return io.TextIOWrapper(buffered, *args, **named, line_buffering=buffering == 1)

    def os_open(self, path: Any, flags: int, *args: Any, **named: Any) -> int:
        """Stand in for `os.open`."""
        if self.holds(path) and flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
            self.check("open", path)
        number = _OS_OPEN(path, flags, *args, **named)
        self._names.pop(number, None)
        if self.holds(path):
            self._names[number] = os.fspath(path)
        return number

    def fsync(self, number: Any) -> None:
        """Stand in for `os.fsync`."""
        number = number if isinstance(number, int) else number.fileno()
        if number in self._names:
            self.check("sync", self._names[number])
        _FSYNC(number)

    def on_paths(self, what: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """Return a stand-in for a function whose last path is what it makes."""

        def stand_in(*args: Any, **named: Any) -> Any:
            paths = [argument for argument in args if isinstance(argument, str | os.PathLike)]
            if paths and self.holds(paths[-1]):
                self.check(what, paths[-1])
            return real(*args, **named)

        return stand_in

    def unlink(self, path: Any, *args: Any, **named: Any) -> None:
        """Stand in for `os.unlink`, which needs no room, but a disk that can be written to."""
        if self.hit and self._code == errno.EROFS and self.holds(path) and os.path.lexists(path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))
        _UNLINK(path, *args, **named)


class _Raw(io.FileIO):
    """A file that asks the disk before each write."""

    def __init__(self, file: Any, mode: str, disk: FailingDisk) -> None:
        super().__init__(file, mode)
        self._disk = disk
        self._is_full = False

    def write(self, data: Any) -> int:
        with memoryview(data) as content:
            if not content.nbytes:
                return 0
            try:
                self._disk.check("write", self.name)
            except OSError as error:
                part = content[: content.nbytes // 2]
                if error.errno not in (errno.ENOSPC, errno.EDQUOT) or self._is_full or not part.nbytes:
                    raise
                self._is_full = True  # a full disk takes a part, and says at the next write that it is full
                return super().write(part)
            return super().write(content)


_OPEN, _OS_OPEN, _FSYNC, _UNLINK = io.open, os.open, os.fsync, os.unlink


@contextlib.contextmanager
def failing_disk(*roots: Path) -> Iterator[FailingDisk]:
    """Watch what this process writes below these folders; nothing fails before `arm`."""
    disk = FailingDisk(*roots)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(io, "open", disk.open)
        patch.setattr(builtins, "open", disk.open)
        patch.setattr(os, "open", disk.os_open)
        patch.setattr(os, "fsync", disk.fsync)
        for name in ("unlink", "remove"):
            patch.setattr(os, name, disk.unlink)
        for what, name in (
            ("rename", "replace"),
            ("rename", "rename"),
            ("link", "link"),
            ("folder", "mkdir"),
            ("touch", "utime"),
        ):
            patch.setattr(os, name, disk.on_paths(what, getattr(os, name)))
        yield disk


def each_write_failing(
    root: Path, command: Callable[[], int], code: int = errno.ENOSPC, step: int = 1
) -> Iterator[tuple[int, str]]:
    """Have each write of a command below `root` fail in turn: yield its exit code, and what failed.

    At the end nothing fails, and the exit code must be 0.

    Args:
        step: 2 for every second write, and so on.
    """
    with failing_disk(root) as disk:
        for number in range(0, 10_000, step):
            disk.arm(number, code)
            ended, hit = command(), disk.hit
            disk.arm(None)
            if hit is None:
                assert number > 0, "it writes nothing"
                assert ended == 0
                return
            yield ended, f"write {number}: {hit}"
