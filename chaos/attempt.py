"""One real run in a fork of this process: killed at a chosen file operation, or disturbed in another way."""

import errno
import itertools
import os
import signal
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from chaos import failpoints
from chaos.failpoints import Point
from finetune.config import Config
from finetune.run.run import run
from finetune.system.signals import polling_signals


@dataclass(frozen=True)
class Disturbance:
    """What happens to an attempt.

    Attributes:
        kill_at: number of the fail point at which the process is killed.
        full_from: number of the fail point from which on the disk is full.
        stop_at_check: which of the run's checks for a signal finds one; the run then saves in mid-epoch and stops.
        prepare: called in the process before the run.
    """

    kill_at: int | None = None
    full_from: int | None = None
    stop_at_check: int | None = None
    prepare: Callable[[], None] = failpoints.do_nothing


class Attempt(NamedTuple):
    """How an attempt at a run ended."""

    was_killed: bool  # at the point of its disturbance
    points: list[Point]  # the fail points it passed, if it came to its end
    error: str  # the traceback or exit code, if it failed


def attempt_run(config: Config, folder: Path, disturbance: Disturbance) -> Attempt:
    """Run `config` in folder/run, with folder/cache, in a process of its own."""
    torch.set_num_threads(1)  # a fork has none of the other threads, and would wait for them for ever
    Image.init()  # imports the readers of all formats, which each fork would do again
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 and later warn of numpy's threads, which do no harm
        pid = os.fork()
    if pid == 0:
        os.close(reader)
        _run_and_exit(config, folder, disturbance, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read().decode()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    lines = text.split("\0") if text and code == 0 else []
    error = "" if code in (0, -signal.SIGKILL) else text or f"exit code {code}"
    return Attempt(code == -signal.SIGKILL, [_parse(line) for line in lines], error)


def _parse(line: str) -> Point:
    operation, _, path = line.partition(" ")
    return operation, path


def _run_and_exit(config: Config, folder: Path, disturbance: Disturbance, writer: int) -> None:
    """Run, write the points passed or the traceback to the pipe, and exit."""
    passed: list[str] = []
    checks = itertools.count(1)

    def on_point(operation: str, path: str, tear: Callable[[], None]) -> None:
        if len(passed) == disturbance.kill_at:
            tear()
            failpoints.kill_this_process()
        if disturbance.full_from is not None and len(passed) >= disturbance.full_from and operation != "delete":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        passed.append(f"{operation} {failpoints.without_random_parts(os.path.relpath(path, folder))}")

    code = 1
    try:
        os.environ["FINETUNE_CACHE"] = str(folder / "cache")
        disturbance.prepare()
        failpoints.watch([folder], on_point)
        with polling_signals():
            run(config, folder / "run", peers=[config], interrupted=lambda: next(checks) == disturbance.stop_at_check)
        code = 0
    except BaseException:
        passed = [traceback.format_exc()]
    finally:
        os.write(writer, "\0".join(passed).encode())
        os._exit(code)
