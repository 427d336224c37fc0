"""One real run, ended at a chosen point of its file operations and started again, in forks of this process."""

import errno
import itertools
import os
import signal
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from chaos import failpoints
from finetune.config import Config
from finetune.run.run import run
from finetune.system.signals import polling_signals

Point = tuple[str, str]  # what, and where below the folder


class Attempt(NamedTuple):
    """How an attempt at a run ended.

    Attributes:
        killed: whether it ended at the point that it was to end at.
        points: of an attempt that came to its end.
        fault: what it raised.
    """

    killed: bool
    points: list[Point]
    fault: str


def attempt(
    config: Config,
    folder: Path,
    at: int | None = None,
    before: Callable[[], None] = failpoints.nothing,
    asks: int | None = None,
    full: bool = False,
) -> Attempt:
    """Run `config` in folder/run, with folder/cache, in a process of its own, up to point number `at`.

    Args:
        before: called in that process before the run.
        asks: the run is asked to stop, and so to save in mid-epoch, at this time that it asks whether to.
        full: at the point the disk becomes full, and stays so, instead of the process's end.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from Python 3.12 on, for threads of numpy's that do not mind
        pid = os.fork()
    if pid == 0:
        os.close(reader)
        _be_the_run(config, folder, at, before, asks, full, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read().decode()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    lines = told.split("\0") if told else []
    fault = "" if code in (0, -signal.SIGKILL) else told or f"exit code {code}"
    return Attempt(code == -signal.SIGKILL, [_split(line) for line in lines] if code == 0 else [], fault)


def _split(line: str) -> Point:
    what, _, path = line.partition(" ")
    return what, path


def _be_the_run(
    config: Config,
    folder: Path,
    at: int | None,
    before: Callable[[], None],
    asks: int | None,
    full: bool,
    writer: int,
) -> None:
    """Run, tell the points passed or the fault, and exit."""
    passed: list[str] = []
    asked = itertools.count(1)

    def on_point(what: str, path: str, tear: Callable[[], None]) -> None:
        if full and at is not None and len(passed) >= at and what != "delete":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if len(passed) == at and not full:
            tear()
            failpoints.end()
        passed.append(f"{what} {failpoints.plain(os.path.relpath(path, folder))}")

    code = 1
    try:
        os.environ["FINETUNE_CACHE"] = str(folder / "cache")
        before()
        failpoints.watch([folder], on_point)
        with polling_signals():
            run(config, folder / "run", peers=[config], interrupted=lambda: next(asked) == asks)
        code = 0
    except BaseException:
        passed = [traceback.format_exc()]
    finally:
        os.write(writer, "\0".join(passed).encode())
        os._exit(code)
