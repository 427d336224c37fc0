"""A disk that fails at a chosen write: for tests of what is left when there is no room, on every system.

`assert_each_write_keeps` is what all commands have to stand that write files for their user; their tests say which.
"""

import builtins
import contextlib
import errno
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# From the failing write on nothing can be written any more, up to the end of the test; EIO hits one write alone.
LASTING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
WRITES = set("wax+")
CODES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


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


@dataclass
class WritingCommand:
    """A command that writes files for its user, which are the same each time.

    Attributes:
        main: runs it and returns its exit code.
        folder: all that it writes is below. What is there now is there before each try, too.
        out: the file or folder that must stay as it is until it can be written completely.
        message: how its one line of error begins.
    """

    main: Callable[[], int]
    folder: Path
    out: Path
    message: str = ""

    def __post_init__(self) -> None:
        self.message = self.message or f"WriteError: {self.out} can't be written ("


def contents(folder: Path) -> dict[str, bytes | None]:
    """Return what lies below a folder: path -> bytes of a file, None for a folder."""
    paths = {str(path.relative_to(folder)): path for path in folder.rglob("*")} if folder.exists() else {}
    return {name: path.read_bytes() if path.is_file() else None for name, path in paths.items()}


def _restore(folder: Path, before: dict[str, bytes | None]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in sorted(before.items()):
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)


def _points(writes: list[str], every: bool) -> Iterator[tuple[int, int]]:
    """Yield (number of the write, fault): of all writes, or of some: files of each kind, steps in turn."""
    if every:
        for code in CODES:
            yield from ((number, code) for number in range(0, len(writes), 1 if code == errno.ENOSPC else 3))
        return
    steps: dict[str, dict[str, int]] = {}  # suffix of the file -> step -> number of the write
    for number, write in enumerate(writes):
        step, _, name = write.partition(" ")
        steps.setdefault(Path(re.sub(r"\.[0-9a-f]{8}\.tmp$", "", name)).suffix, {})[step] = number
    for place, numbers in enumerate(steps.values()):
        chosen = list(numbers.values()) if len(steps) < 3 else [list(numbers.values())[place % len(numbers)]]
        yield from ((number, CODES[(place + more) % len(CODES)]) for more, number in enumerate(chosen))


def _tidy(folder: Path, before: dict[str, bytes | None]) -> None:
    """Delete the temporary files that could not be deleted from a disk without writing."""
    for path in list(folder.rglob(".*")):
        if str(path.relative_to(folder)) not in before:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def assert_each_write_keeps(command: WritingCommand, capsys: pytest.CaptureFixture[str], every: bool = False) -> None:
    """Assert that a command whose disk fails at some write says so in one line with exit code 1 and keeps `out`.

    Nothing half-written is left: each file is the earlier one or the complete one. With room, the command writes all.

    Args:
        every: try every write with each fault, not only some.
    """
    before = contents(command.folder)
    _restore(command.folder, before)
    with failing_disk(command.folder) as disk:
        assert command.main() == 0, capsys.readouterr().err
        writes, complete = list(disk.writes), contents(command.folder)
        assert writes, "it writes nothing"
        for number, code in _points(writes, every):
            _restore(command.folder, before)
            capsys.readouterr()
            disk.arm(number, code)
            ended = command.main()
            case = f"{errno.errorcode[code]} at write {number} of {len(writes)}, {writes[number]}"
            assert disk.hit is not None, case
            disk.arm(None)
            if ended == 0 and code == errno.EIO:  # the write was tried again, or the folder was there
                assert contents(command.folder) == complete, case
                continue
            _assert_told(command, ended, capsys.readouterr().err, case)
            if code == errno.EROFS:
                _tidy(command.folder, before)
            _assert_kept(command, before, complete, case)
        assert command.main() == 0, capsys.readouterr().err
        assert contents(command.folder) == complete


def _assert_told(command: WritingCommand, ended: int, told: str, case: str) -> None:
    lines = told.splitlines()
    assert ended == 1, f"{case}\n{told}"
    assert [line for line in lines if "can't be written" in line] == lines[-1:], f"{case}\n{told}"
    assert lines[-1].startswith(command.message), f"{case}\n{told}"
    assert "free" in lines[-1], f"{case}\n{told}"


def _assert_kept(
    command: WritingCommand, before: dict[str, bytes | None], complete: dict[str, bytes | None], case: str
) -> None:
    after, out = contents(command.folder), command.out.relative_to(command.folder)
    for name, content in after.items():
        assert content in (before.get(name, b"?"), complete.get(name, b"?")), f"{name} is half-written: {case}"
    of_out = [{n: c for n, c in files.items() if Path(n).is_relative_to(out)} for files in (before, after)]
    assert of_out[0] == of_out[1], case


EVERY = pytest.mark.parametrize(
    "every", [pytest.param(False, id="some"), pytest.param(True, id="every", marks=pytest.mark.slow)]
)  # which writes fail in the test that it marks
