"""An agent in this process, whose runs have ended as soon as they are started: what it starts, in which order.

Signals, crashes and processes side by side need the real ones of agent_processes.py.
"""

import contextlib
import io
import os
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

import agent
from finetune.rundir.claim import RunTakenError
from finetune.rundir.failures import cause_of
from finetune.sweep.agents import fork_server, run_process
from finetune.sweep.agents.run_main import RunProcessArgs
from finetune.sweep.agents.run_process import RunOutcome
from tests.support import fake_run
from tests.support.agent_processes import Place


@dataclass
class EndedRun:
    """Stands for the process of a run that has ended."""

    ended: RunOutcome
    started: float = field(default_factory=time.monotonic)
    progress: dict[str, Any] = field(default_factory=dict)

    def read_progress(self) -> None:
        """Read nothing."""

    def has_ended(self) -> bool:
        """Return True."""
        return True

    def outcome(self) -> RunOutcome:
        """Return how the run ended."""
        return self.ended


def execute(context: object, args: RunProcessArgs) -> EndedRun:  # noqa: ARG001
    """Execute a stand-in run here and now."""
    try:
        fake_run.run(args.config, args.run_dir, on_progress=lambda _: None, interrupted=lambda: False, peers=args.peers)
    except RunTakenError as error:
        return EndedRun(RunOutcome("taken", str(error)))
    except Exception as error:
        return EndedRun(RunOutcome("failed", f"{type(error).__name__}: {error}", cause_of(error)))
    return EndedRun(RunOutcome("finished"))


class InProcess(Place):
    """A folder to run agents in, one after another, in this process."""

    def run(self, *arguments: str, **environment: object) -> tuple[int | None, str]:
        """Run an agent to its end; return exit code and output."""
        output = io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            for name, value in {"seconds": 0, **environment}.items():
                patch.setenv(f"FAKE_{name.upper()}", str(value))
            patch.setattr(fork_server, "start_server", lambda _: None)
            patch.setattr(run_process, "start", execute)
            patch.setattr(run_process, "wait", lambda *_: None)
            patch.setattr(os, "fsync", lambda _: None)
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                try:
                    code: int | None = agent.main(arguments, self.code)
                except SystemExit as error:  # argparse's
                    code = int(error.code or 0)
        return code, output.getvalue()
