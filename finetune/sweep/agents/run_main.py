"""The process of one run, seen from inside: its main function.

It has a session of its own, so that Ctrl-C on the terminal reaches the agent alone; it writes to the run's log.txt; and
it ends itself when the agent is gone, however the agent ended.
"""

import contextlib
import importlib
import multiprocessing
import multiprocessing.connection
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from finetune.config import Config
from finetune.errors import EXIT_BAD_INPUT, EXIT_FAILED, RunInterrupted, UserError
from finetune.rundir import failures, keys
from finetune.rundir.claim import RunTakenError
from finetune.sweep import devices
from finetune.system.output import logging_to, make_streams_safe
from finetune.system.signals import SIGNALS, ReceivedSignals, handle_signals

EXIT_TAKEN = 75  # EX_TEMPFAIL of sysexits.h: another process runs this run


class RunProcessArgs(NamedTuple):
    """Arguments of a run's process.

    Attributes:
        run: "module:function", see `TrainingApi`.
        run_dir: absolute.
        threads: its share of the cores.
        gpu: the GPU it uses, as CUDA_VISIBLE_DEVICES names it; None where there is no choice.
        peers: configs of the sweep's unfinished runs, this one among them; None where they are not known.
    """

    run: str
    config: Config
    run_dir: Path
    threads: int
    gpu: str | None
    peers: Sequence[Config] | None


def main(args: RunProcessArgs, pipe: Connection) -> None:
    """Execute a run and exit.

    Args:
        pipe: to the agent, for progress and the error of a failed run.
    """
    os.setsid()
    with handle_signals() as received:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        threading.Thread(target=_end_with_agent, name="agent watch", daemon=True).start()
        devices.prefer_as_oom_victim()
        _redirect_output(args.run_dir / keys.LOG)
        os.environ["OMP_NUM_THREADS"] = str(args.threads)
        if args.gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = args.gpu
        with logging_to("stdout"):
            sys.exit(_execute(args, pipe, received))


def _end_with_agent() -> None:
    """Kill this process and all its children as soon as the agent is gone."""
    agent = multiprocessing.parent_process()
    assert agent is not None, "a run's process is started by an agent"
    multiprocessing.connection.wait([agent.sentinel])
    os.killpg(0, signal.SIGKILL)


def _redirect_output(log: Path) -> None:
    """Append the output of this process and its libraries to `log`, or discard it if that can't be written."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.is_symlink():  # in a run directory from elsewhere it could point to any file of the user's
            log.unlink()
        number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError:  # the run itself raises the error where it matters
        number = os.open(os.devnull, os.O_WRONLY)
    os.dup2(number, 1)
    os.dup2(number, 2)
    os.close(number)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    make_streams_safe()


def _execute(args: RunProcessArgs, pipe: Connection, received: ReceivedSignals) -> int:
    """Execute the run and return its exit code."""
    try:
        module, _, name = args.run.partition(":")
        function = getattr(importlib.import_module(module), name)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(args.threads)
        function(
            args.config,
            args.run_dir,
            on_progress=lambda progress: _send(pipe, progress),
            interrupted=lambda: received.number != 0,
            peers=args.peers,
        )
    except RunTakenError as error:
        print(error)
        return EXIT_TAKEN
    except RunInterrupted as error:
        print(error)
        return 128 + received.number
    except UserError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except Exception as error:
        _send(pipe, {"failed": f"{type(error).__name__}: {error}", "cause": failures.cause_of(error)})
        with contextlib.suppress(OSError):  # the disk that holds the log may be full
            traceback.print_exc()
        return EXIT_FAILED
    return 0


def _send(pipe: Connection, message: dict[str, Any]) -> None:
    """Send a message to the agent unless its pipe is full: a run never waits for the agent."""
    with contextlib.suppress(OSError):
        if select.select([], [pipe], [], 0)[1]:
            pipe.send(message)
