"""The process of one run, seen from the agent: start, progress, end. It is a fork of the agent's fork server."""

import contextlib
import multiprocessing.connection
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple

from finetune.errors import EXIT_BAD_INPUT
from finetune.rundir import claim, failures, files, keys
from finetune.sweep.agents import fork_server, run_main
from finetune.sweep.agents.run_main import EXIT_TAKEN, RunProcessArgs
from finetune.system import documents
from finetune.system.signals import SIGNALS

# Exit code that multiprocessing reports once the fork server is gone: only the server learns how its forks end.
EXIT_UNKNOWN = 255
REASON_UNKNOWN = "ended without a message, as did the fork server; out of memory is the usual cause"

# Causes of a run that a signal ended; other signals, such as SIGTERM, are sent on purpose.
SIGNAL_CAUSES = {
    signal.SIGKILL: "memory",  # the usual cause
    signal.SIGBUS: "memory",
    signal.SIGSEGV: "code",
    signal.SIGABRT: "code",
    signal.SIGFPE: "code",
    signal.SIGILL: "code",
}


class RunOutcome(NamedTuple):
    """How a run's process ended."""

    state: str  # finished, taken (another agent runs it), failed, or killed (by a signal)
    reason: str = ""  # empty if finished
    cause: str = ""  # one of `failures.CAUSES` for a failure or an unexpected signal; else empty


@dataclass
class RunProcess:
    """A run's process.

    Attributes:
        started: time.monotonic() at its start.
        birth: start time by the system's clock, which distinguishes the process from a later one with its id.
        progress: the last progress reported: epoch (epochs finished, such as 2.35), epochs, val_accuracy, phase.
        failure: reason and cause that the run reported at its end; empty if it reported none.
    """

    run_dir: Path
    process: ForkServerProcess
    pipe: Connection
    started: float
    birth: float | None
    progress: dict[str, Any] = field(default_factory=dict)
    failure: dict[str, str] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        """The process id."""
        assert self.process.pid is not None, "the process has been started"
        return self.process.pid

    def read_progress(self) -> None:
        """Read the run's messages since the last call."""
        with contextlib.suppress(EOFError, OSError):
            while self.pipe.poll():
                message = self.pipe.recv()
                if "failed" in message:
                    self.failure = {"reason": message["failed"], "cause": message["cause"]}
                else:
                    self.progress = message

    def has_ended(self) -> bool:
        """Return whether the process has ended; it can outlive the fork server."""
        code = self.process.exitcode
        if code != EXIT_UNKNOWN:
            return code is not None
        return self.birth is None or claim.process_start_time(self.pid) != self.birth

    def terminate(self) -> None:
        """Ask the run to finish its step, save and end; the next start resumes it there."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill the run and its children."""
        self._kill_group()
        with contextlib.suppress(ProcessLookupError):  # it may not have made its group yet
            os.kill(self.pid, signal.SIGKILL)

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def outcome(self) -> RunOutcome:
        """Return how the process ended; record it in the run directory if the run itself could not."""
        self.process.join()
        self.read_progress()
        self.pipe.close()
        code = self.process.exitcode
        recorded = _recorded_outcome(self.run_dir)
        if recorded.state == "finished":
            return recorded
        if code == EXIT_TAKEN or claim.is_alive(self.run_dir):
            return RunOutcome("taken", "another agent runs it")
        if code == EXIT_UNKNOWN:
            return recorded if recorded.state != "unfinished" else self._record("killed", REASON_UNKNOWN, "memory")
        if number := _signal_of(code):
            return self._outcome_of_signal(number, recorded)
        if self.failure:  # the disk may have had no room to record it
            return self._record("failed", **self.failure)
        # A run with bad input writes nothing: the record is of an earlier attempt.
        if recorded.state != "failed" or code == EXIT_BAD_INPUT:
            return self._outcome_of_log(code)
        return recorded

    def _outcome_of_signal(self, number: int, recorded: RunOutcome) -> RunOutcome:
        self._kill_group()  # the run's children, such as loader processes
        if number in SIGNALS and recorded.state == "killed":  # a run that was asked to stop records that itself
            return RunOutcome("killed", recorded.reason)
        hint = "; out of memory is the usual cause" if number == signal.SIGKILL else ""
        reason = f"killed by signal {number} ({signal.Signals(number).name}){hint}"
        return self._record("killed", reason, SIGNAL_CAUSES.get(signal.Signals(number), ""))

    def _outcome_of_log(self, code: int | None) -> RunOutcome:
        line = _last_line(self.run_dir / keys.LOG)
        cause = failures.cause_of_log_line(line)
        if cause == "code" and code == EXIT_BAD_INPUT:  # the last line of a longer message
            cause = "input"
        return self._record("failed", f"exit code {code}: {line}", cause)

    def _record(self, state: str, reason: str, cause: str) -> RunOutcome:
        """Record an outcome in the run directory, unless the disk is full, and return it."""
        with contextlib.suppress(OSError):
            files.write_state(self.run_dir, state, reason, cause)
        return RunOutcome(state, reason, cause)


def start(context: ForkServerContext, args: RunProcessArgs) -> RunProcess:
    """Start the process of a run.

    Raises:
        OSError, EOFError: it can't be started.
    """
    receiver, sender = context.Pipe(duplex=False)
    process = fork_server.fork(context, run_main.main, (args, sender), args.run_dir.name)
    sender.close()
    assert process.pid is not None, "it has just been started"
    return RunProcess(args.run_dir, process, receiver, time.monotonic(), claim.process_start_time(process.pid))


def wait(processes: Iterable[RunProcess], seconds: float) -> None:
    """Return when one of the processes has ended, or after `seconds`."""
    # Where the fork server is gone, nothing wakes this up.
    sentinels = [process.process.sentinel for process in processes if process.process.exitcode is None]
    multiprocessing.connection.wait(sentinels, seconds)


def _recorded_outcome(run_dir: Path) -> RunOutcome:
    """Return the outcome that the run directory records; the cause of failures alone."""
    state, reason = files.status(run_dir)
    if state != "failed":
        return RunOutcome(state, "" if state == "finished" else reason)
    return RunOutcome(state, reason, str(documents.read_json_or_empty(run_dir / keys.STATE).get("cause") or "code"))


def _signal_of(code: int | None) -> int:
    """Return the signal that ended a process, or that it exited after (128 + signal); else 0."""
    if code is None:
        return 0
    return -code if code < 0 else code - 128 if code - 128 in SIGNALS else 0


def _last_line(path: Path) -> str:
    lines: list[str] = []
    with contextlib.suppress(OSError):  # there is no log where it could not be opened
        lines = path.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "its log is empty")
