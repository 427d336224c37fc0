"""The points at which a process changes files: told one by one, and one of them can be the process's last.

A point is the moment before a file is opened for writing, synced, renamed, linked, deleted, or its time is set; and the
middle of a write, with half of it on the disk (of a file's writes the 1st, 2nd, 4th and so on). What ends there is a
process that loses its power: SIGKILL, no `finally`.

Armed by environment variables in every Python process that has chaos/hook on its path:
    CHAOS_ROOTS   folders, joined with os.pathsep: what is watched
    CHAOS_LOG     a file: "time pid what path", a line a point
    CHAOS_ODDS    the odds, such as 0.01, that a process which runs a run ends at a point
    CHAOS_SEED    of these odds
"""

import builtins
import io
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

OnPoint = Callable[[str, str, Callable[[], None]], None]  # (what, path, tear half of a write)

_EVENTS = {
    "os.rename": "rename",
    "os.link": "link",
    "os.remove": "delete",
    "os.rmdir": "delete",
    "os.mkdir": "mkdir",
    "os.utime": "touch",
    "os.truncate": "truncate",
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def nothing() -> None:
    """Leave the file as it is."""


def end() -> None:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def plain(path: str) -> str:
    """Return a path without the random parts of its names, so that two attempts give the same."""
    return re.sub(r"\.[0-9a-f]{8}\.(tmp|gone)", r".*.\1", path)


def watch(roots: list[Path], on_point: OnPoint) -> None:
    """Call `on_point` at each point below the roots, from now on to the end of this process."""
    below = tuple(f"{root.resolve()}{os.sep}" for root in roots)
    busy = False  # what `on_point` itself does is no point

    def point(what: str, path: str, tear: Callable[[], None] = nothing) -> None:
        nonlocal busy
        if busy or not path.startswith(below):
            return
        busy = True
        try:
            on_point(what, path, tear)
        finally:
            busy = False

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event == "open":
            if isinstance(given[0], str | os.PathLike) and given[2] & _WRITING:
                point("open", _absolute(given[0], -1))
        elif event in _EVENTS:
            folder = given[-1] if event in ("os.remove", "os.rmdir", "os.mkdir") else -1
            if isinstance(given[0], str | os.PathLike):
                point(_EVENTS[event], _absolute(given[0], folder))
            else:
                point(_EVENTS[event], _name_of(given[0]))

    real_open, real_sync = io.open, os.fsync

    def open_watched(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        opened = real_open(file, mode, *rest, **named)
        if set(mode) & set("wax+") and isinstance(file, str | os.PathLike):
            return _Watched(opened, _absolute(file, -1), point)
        return opened

    def sync(descriptor: Any) -> None:
        point("sync", _name_of(descriptor))
        real_sync(descriptor)

    sys.addaudithook(hook)
    builtins.open = io.open = open_watched
    setattr(os, "fsync", sync)  # noqa: B010  (of the same signature as far as it is used)


class _Watched:
    """A file open for writing whose writes are points."""

    def __init__(self, file: Any, path: str, point: Callable[[str, str, Callable[[], None]], None]) -> None:
        self._file, self._path, self._point, self._writes = file, path, point, 0

    def write(self, data: Any) -> Any:
        self._writes += 1
        if self._writes & (self._writes - 1) == 0:
            self._point("write", self._path, lambda: self._tear(data))
        return self._file.write(data)

    def _tear(self, data: Any) -> None:
        half = data if isinstance(data, str) else memoryview(data).cast("B")
        self._file.write(half[: len(half) // 2])
        self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_Watched":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Any:
        return iter(self._file)


def _absolute(path: str | os.PathLike[str], folder: Any) -> str:
    path = os.fspath(path)
    if isinstance(folder, int) and folder >= 0:
        path = os.path.join(_name_of(folder), path)  # noqa: PTH118
    return os.path.abspath(path)  # noqa: PTH100


def _name_of(descriptor: Any) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
    except OSError:
        return ""


def arm_from_environment() -> None:
    """Watch, log and end this process as the environment says (see above)."""
    log = os.open(os.environ["CHAOS_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    odds, seed = float(os.environ.get("CHAOS_ODDS", "0")), os.environ.get("CHAOS_SEED", "0")
    # The fork server's children share its generator's state; a process id makes another one of it.
    drawn: dict[int, random.Random] = {}

    def on_point(what: str, path: str, tear: Callable[[], None]) -> None:
        pid = os.getpid()
        os.write(log, f"{time.monotonic_ns()} {pid} {what} {path}\n".encode())
        chance = drawn.setdefault(pid, random.Random(f"{seed} {pid}")).random()
        if chance < odds and os.getsid(0) == pid and os.getppid() != 1 and _runs_a_run():
            os.write(log, f"{time.monotonic_ns()} {pid} CRASH {what} {path}\n".encode())
            tear()
            end()

    watch([Path(root) for root in os.environ["CHAOS_ROOTS"].split(os.pathsep)], on_point)


def _runs_a_run() -> bool:
    import multiprocessing

    return multiprocessing.parent_process() is not None
