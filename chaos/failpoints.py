"""Fail points: a hook at every file operation of a process, at which it can be killed.

A fail point is the moment before a file is opened for writing, synced, renamed, linked or deleted, or its time is set;
and the middle of a write, with half of it on the disk (of a file's writes the 1st, 2nd, 4th and so on). A process that
is killed there ends as in a power cut: SIGKILL, no `finally`.

Environment variables arm the fail points in every Python process that has chaos/hook on its path:
    CHAOS_ROOTS   the folders to watch, joined with os.pathsep
    CHAOS_LOG     a file: "time pid operation path", a line for each point
    CHAOS_ODDS    the probability, such as 0.01, that a process which executes a run is killed at a point
    CHAOS_SEED    seeds these odds
"""

import builtins
import io
import multiprocessing
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Point = tuple[str, str]  # operation, path
OnPoint = Callable[[str, str, Callable[[], None]], None]  # (operation, path, writes half of what is being written)

_OPERATIONS = {  # by audit event
    "os.rename": "rename",
    "os.link": "link",
    "os.remove": "delete",
    "os.rmdir": "delete",
    "os.mkdir": "mkdir",
    "os.utime": "touch",
    "os.truncate": "truncate",
}
_WITH_DIR_FD_LAST = ("os.remove", "os.rmdir", "os.mkdir")  # audit events whose last argument is `dir_fd`
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def do_nothing() -> None:
    """Leave everything as it is."""


def kill_this_process() -> None:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def without_random_parts(path: str) -> str:
    """Return a path without the random parts of temporary names, so that two attempts give the same."""
    return re.sub(r"\.[0-9a-f]{8}\.(tmp|gone)", r".*.\1", path)


def watch(roots: list[Path], on_point: OnPoint) -> None:
    """Call `on_point` at each fail point below the roots, from now on to the end of this process."""
    prefixes = tuple(f"{root.resolve()}{os.sep}" for root in roots)
    is_busy = False  # file operations of `on_point` itself are not fail points

    def pass_point(operation: str, path: str, tear: Callable[[], None] = do_nothing) -> None:
        nonlocal is_busy
        if is_busy or not path.startswith(prefixes):
            return
        is_busy = True
        try:
            on_point(operation, path, tear)
        finally:
            is_busy = False

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            if isinstance(arguments[0], str | os.PathLike) and arguments[2] & _WRITE_FLAGS:
                pass_point("open", _absolute(arguments[0], -1))
        elif event in _OPERATIONS:
            dir_fd = arguments[-1] if event in _WITH_DIR_FD_LAST else -1
            target = arguments[0]
            is_path = isinstance(target, str | os.PathLike)
            pass_point(_OPERATIONS[event], _absolute(target, dir_fd) if is_path else _path_of(target))

    real_open, real_sync = io.open, os.fsync

    def open_watched(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        opened = real_open(file, mode, *arguments, **options)
        if set(mode) & set("wax+") and isinstance(file, str | os.PathLike):
            return _WatchedFile(opened, _absolute(file, -1), pass_point)
        return opened

    def sync(descriptor: Any) -> None:
        pass_point("sync", _path_of(descriptor))
        real_sync(descriptor)

    sys.addaudithook(audit)
    builtins.open = io.open = open_watched
    setattr(os, "fsync", sync)  # noqa: B010  (mypy: of another signature, but used the same way)


class _WatchedFile:
    """A file open for writing whose writes are fail points."""

    def __init__(self, file: Any, path: str, pass_point: OnPoint) -> None:
        self._file, self._path, self._pass_point, self._writes = file, path, pass_point, 0

    def write(self, data: Any) -> Any:
        self._writes += 1
        if self._writes & (self._writes - 1) == 0:
            self._pass_point("write", self._path, lambda: self._tear(data))
        return self._file.write(data)

    def _tear(self, data: Any) -> None:
        content = data if isinstance(data, str) else memoryview(data).cast("B")
        self._file.write(content[: len(content) // 2])
        self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_WatchedFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Any:
        return iter(self._file)


def _absolute(path: str | os.PathLike[str], dir_fd: Any) -> str:
    path = os.fspath(path)
    if isinstance(dir_fd, int) and dir_fd >= 0:
        path = os.path.join(_path_of(dir_fd), path)  # noqa: PTH118
    return os.path.abspath(path)  # noqa: PTH100


def _path_of(descriptor: Any) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
    except OSError:
        return ""


def arm_from_environment() -> None:
    """Watch, log and kill this process as the environment variables say (see above)."""
    log = os.open(os.environ["CHAOS_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    odds, seed = float(os.environ.get("CHAOS_ODDS", "0")), os.environ.get("CHAOS_SEED", "0")
    # Children of the fork server would share the state of its generator: each process id has one of its own.
    generators: dict[int, random.Random] = {}

    def on_point(operation: str, path: str, tear: Callable[[], None]) -> None:
        pid = os.getpid()
        os.write(log, f"{time.monotonic_ns()} {pid} {operation} {path}\n".encode())
        number = generators.setdefault(pid, random.Random(f"{seed} {pid}")).random()
        if number < odds and os.getsid(0) == pid and os.getppid() != 1 and multiprocessing.parent_process() is not None:
            os.write(log, f"{time.monotonic_ns()} {pid} CRASH {operation} {path}\n".encode())
            tear()
            kill_this_process()

    watch([Path(root) for root in os.environ["CHAOS_ROOTS"].split(os.pathsep)], on_point)
