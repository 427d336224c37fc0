"""One process a run, a fork of the agent's fork server (see fork_server.py).

A run's process is in a session of its own, so that Ctrl-C on the terminal reaches the agent alone; it writes to its
log.txt; and it ends itself when the agent is gone, however the agent ended.
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
import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple

from finetune.config import Config
from finetune.errors import EXIT_BAD_INPUT, EXIT_FAILED, RunInterrupted, UserError
from finetune.rundir import claim, failures, files, keys
from finetune.rundir.claim import RunTakenError
from finetune.sweep import devices
from finetune.sweep.agents import fork_server
from finetune.system import documents, signals
from finetune.system.output import logging_to, make_streams_safe

EXIT_TAKEN = 75  # EX_TEMPFAIL of sysexits.h: another process runs this run
EXIT_LOST = 255  # what multiprocessing says once the fork server is gone, which alone learns how its forks end
SIGNALS = signals.SIGNALS

LOST = "ended without a word, and so had the process that starts runs; out of memory is the usual cause"

# What a signal that ends a run means; others, such as SIGTERM, are somebody's wish.
SIGNAL_CAUSES = {
    signal.SIGKILL: "memory",  # the usual cause
    signal.SIGBUS: "memory",
    signal.SIGSEGV: "code",
    signal.SIGABRT: "code",
    signal.SIGFPE: "code",
    signal.SIGILL: "code",
}


@dataclass
class RunProcess:
    """A run's process, seen from the agent.

    Attributes:
        started: time.monotonic() at its start.
        birth: what tells its process from a later one of the same id (see claim.started).
        progress: what the run said last: epoch (finished, such as 2.35), epochs, val_accuracy, phase.
        failure: reason and cause, as the run told them at its end; empty where it did not.
    """

    run_dir: Path
    process: ForkServerProcess
    pipe: Connection
    started: float
    birth: float | None
    progress: dict[str, Any] = field(default_factory=dict)
    failure: dict[str, str] = field(default_factory=dict)


class RunProcessArgs(NamedTuple):
    """What a run's process is given.

    Attributes:
        run: "module:function", see `Code`.
        threads: its share of the cores.
        gpu: the GPU it is to use, as CUDA_VISIBLE_DEVICES names it, where there is a choice.
        peers: see `start`.
    """

    run: str
    config: Config
    run_dir: Path
    threads: int
    gpu: str | None
    peers: Sequence[Config] | None


class RunOutcome(NamedTuple):
    """How a run's process ended.

    Attributes:
        state: finished, taken (by another agent), failed or killed (by a signal).
        reason: of all but finished.
        cause: of a failure, and of being killed without anybody's wish: one of `causes.CAUSES`; else empty.
    """

    state: str
    reason: str = ""
    cause: str = ""


def start(
    context: ForkServerContext,
    run: str,
    config: Config,
    run_dir: Path,
    slot: int,
    slots: int,
    peers: Sequence[Config] | None = None,
) -> RunProcess:
    """Start the process of a run.

    Args:
        run: "module:function", see `Code`.
        slot: which of the agent's `slots` it takes; decides its GPU, and its share of the cores.
        peers: configs of the sweep's runs that are not finished yet, this one among them; None where it is not known.
    """
    receiver, sender = context.Pipe(duplex=False)
    job = RunProcessArgs(run, config, run_dir.resolve(), devices.threads(slots), devices.gpu_of(slot), peers)
    process = fork_server.fork(context, _main, (job, sender), run_dir.name)
    sender.close()
    assert process.pid is not None, "it has just been started"
    return RunProcess(run_dir, process, receiver, time.monotonic(), claim.process_start_time(process.pid))


def read_progress(worker: RunProcess) -> None:
    """Take over what the run has said since the last call."""
    with contextlib.suppress(EOFError, OSError):
        while worker.pipe.poll():
            told = worker.pipe.recv()
            if "failed" in told:
                worker.failure = {"reason": told["failed"], "cause": told["cause"]}
            else:
                worker.progress = told


def wait(workers: Iterable[RunProcess], seconds: float) -> None:
    """Return when one of the processes has ended, or after `seconds`."""
    # Where the fork server is gone, nothing wakes this up.
    sentinels = [worker.process.sentinel for worker in workers if worker.process.exitcode is None]
    multiprocessing.connection.wait(sentinels, seconds)


def has_ended(worker: RunProcess) -> bool:
    """Whether a run's process has ended. It lives on without the fork server."""
    code = worker.process.exitcode
    if code != EXIT_LOST:
        return code is not None
    return worker.birth is None or claim.process_start_time(_pid(worker)) != worker.birth


def terminate(worker: RunProcess) -> None:
    """Ask a run to finish its step, save and end; it goes on from there when it is started again."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(_pid(worker), signal.SIGTERM)


def kill(worker: RunProcess) -> None:
    """End a run and all processes it has started, at once."""
    _kill_group(worker)
    with contextlib.suppress(ProcessLookupError):  # it may not have made its group yet
        os.kill(_pid(worker), signal.SIGKILL)


def _kill_group(worker: RunProcess) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(_pid(worker), signal.SIGKILL)


def _pid(worker: RunProcess) -> int:
    assert worker.process.pid is not None, "a worker has been started"
    return worker.process.pid


def outcome(worker: RunProcess) -> RunOutcome:
    """Return how an ended run ended, and why; note it if the run could not."""
    worker.process.join()
    read_progress(worker)
    worker.pipe.close()
    code, run_dir = worker.process.exitcode, worker.run_dir
    state, reason = files.status(run_dir)
    if state == "finished":
        return RunOutcome("finished")
    if code == EXIT_TAKEN or claim.is_alive(run_dir):
        return RunOutcome("taken", "another agent runs it")
    if code == EXIT_LOST:
        if state != "unfinished":
            return RunOutcome(state, reason, _cause_noted(run_dir) if state == "failed" else "")
        return _noted(run_dir, RunOutcome("killed", LOST, "memory"))
    number = _signal_of(code)
    if number:
        _kill_group(worker)  # what the run had started, such as processes that load pictures
        if number not in SIGNALS or state != "killed":  # a run that was asked to stop notes that itself
            hint = "; out of memory is the usual cause" if number == signal.SIGKILL else ""
            reason = f"killed by signal {number} ({signal.Signals(number).name}){hint}"
            return _noted(run_dir, RunOutcome("killed", reason, SIGNAL_CAUSES.get(signal.Signals(number), "")))
        return RunOutcome(state, reason)
    if worker.failure:  # which it may have had no room to note
        return _noted(run_dir, RunOutcome("failed", **worker.failure))
    if state != "failed" or code == EXIT_BAD_INPUT:  # bad input is found before the run writes anything
        line = _last_line(run_dir / keys.LOG)
        cause = failures.cause_of_log_line(line)
        if cause == "code" and code == EXIT_BAD_INPUT:  # a message of several lines, say
            cause = "input"
        return _noted(run_dir, RunOutcome("failed", f"exit code {code}: {line}", cause))
    return RunOutcome(state, reason, _cause_noted(run_dir))


def _cause_noted(run_dir: Path) -> str:
    return str(documents.read_json_or_empty(run_dir / keys.STATE).get("cause") or "code")


def _signal_of(code: int | None) -> int:
    """Return the number of the signal that ended a process, or that it ended itself after; else 0."""
    if code is None:
        return 0
    return -code if code < 0 else code - 128 if code - 128 in SIGNALS else 0


def _noted(run_dir: Path, ended: RunOutcome) -> RunOutcome:
    """Note in the run's directory how it ended, if that can be written: the disk may be full."""
    with contextlib.suppress(OSError):
        files.write_state(run_dir, *ended)
    return ended


def _last_line(path: Path) -> str:
    lines: list[str] = []
    with contextlib.suppress(OSError):  # there is none where it could not be opened
        lines = path.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no word in its log")


def _main(job: RunProcessArgs, pipe: Connection) -> None:
    """Run a run and exit; the first function of its process."""
    os.setsid()
    with signals.handle_signals() as received:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        threading.Thread(target=_end_with_agent, name="agent watch", daemon=True).start()
        devices.prefer_as_oom_victim()
        _write_to(job.run_dir / keys.LOG)
        os.environ["OMP_NUM_THREADS"] = str(job.threads)
        if job.gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = job.gpu
        with logging_to("stdout"):
            sys.exit(_call(job, pipe, received))


def _call(job: RunProcessArgs, pipe: Connection, received: signals.ReceivedSignals) -> int:
    """Return the exit code of the run."""
    try:
        module, _, name = job.run.partition(":")
        function = getattr(importlib.import_module(module), name)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(job.threads)
        function(
            job.config,
            job.run_dir,
            on_progress=lambda progress: _tell(pipe, progress),
            interrupted=lambda: received.number != 0,
            peers=job.peers,
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
        _tell(pipe, {"failed": f"{type(error).__name__}: {error}", "cause": failures.cause_of(error)})
        with contextlib.suppress(OSError):  # the disk that holds the log may be full
            traceback.print_exc()
        return EXIT_FAILED
    return 0


def _tell(pipe: Connection, progress: dict[str, Any]) -> None:
    """Send progress unless the agent is not reading: a run never waits for it."""
    with contextlib.suppress(OSError):
        if select.select([], [pipe], [], 0)[1]:
            pipe.send(progress)


def _end_with_agent() -> None:
    """Kill this process and all it has started as soon as the agent is gone."""
    agent = multiprocessing.parent_process()
    assert agent is not None, "a run's process is started by an agent"
    multiprocessing.connection.wait([agent.sentinel])
    os.killpg(0, signal.SIGKILL)


def _write_to(log: Path) -> None:
    """Send what this process and its libraries print to the end of `log`, or nowhere if that can't be written."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.is_symlink():  # of a run directory from elsewhere: what it names is not to be written to
            log.unlink()
        number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError:  # the run finds that out itself, where it matters
        number = os.open(os.devnull, os.O_WRONLY)
    os.dup2(number, 1)
    os.dup2(number, 2)
    os.close(number)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    make_streams_safe()
