"""The tracker of a run, as the run sees it: a process beside it that copies the run directory to W&B, or nothing.

The run writes its directory and never waits for the tracker. The process (mirror_process.py, the only importer of
wandb here)
reads that directory; it is told where it is and how the run ended by lines of JSON on its standard input, and tells in
the same way when it has reached the server and when the server asks the run to stop. If this process dies, the mirror
sees its input end. Whatever W&B has missed is sent later by `python -m finetune.publish`.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from finetune.system.environment import child_environment

# How long the end of a run waits for what is still to be sent (see `Mirror.end`); seconds.
WAIT_VARIABLE, WAIT_SECONDS = "FINETUNE_WANDB_WAIT", 60.0
UNREACHED_SECONDS = 10.0  # the same, where the server does not answer, and nobody has said how long to wait
POLL_SECONDS = 0.1
ASK_SECONDS = 18.0  # W&B's client learns of a stop within 15 s; its agent ends a run for good after 30 s


@dataclass(frozen=True)
class WandbRunRef:
    """A run on a W&B server.

    Attributes:
        entity: None for the account's default.
        sweep: the id of the sweep it belongs to, or None.
        locked: the sweep's own values of this run are fixed on the server (a run that a W&B agent has been handed).
    """

    entity: str | None
    project: str
    run: str
    sweep: str | None = None
    locked: bool = False


def run_ref_from_environment() -> WandbRunRef | None:
    """Return the run that W&B's agent has handed to this process, or None where W&B is switched off."""
    if is_off():
        return None
    get = os.environ.get
    return WandbRunRef(get("WANDB_ENTITY"), get("WANDB_PROJECT", "uncategorized"), os.environ["WANDB_RUN_ID"],
                  get("WANDB_SWEEP_ID"), locked=True)  # fmt: skip


def is_off() -> bool:
    """Whether the user has switched W&B off, or to offline mode, by WANDB_MODE."""
    return os.environ.get("WANDB_MODE", "online") not in ("online", "shared", "")


class MirrorClient:
    """The mirror's process, or, for a run that is not tracked, nothing.

    Attributes:
        url: of the run on the server, once it has been reached.
        stop: the server has asked the run to stop: None as long as it is not known.
    """

    def __init__(self, target: WandbRunRef | None, wait: float | None = None) -> None:
        """Start the process, or none without a target.

        Args:
            wait: seconds that `end` waits at most (default: FINETUNE_WANDB_WAIT, else WAIT_SECONDS).
        """
        self._wait = wait_seconds() if wait is None else wait
        is_said = wait is not None or WAIT_VARIABLE in os.environ
        self._unreached = self._wait if is_said else UNREACHED_SECONDS
        self._connecting: float | None = None  # since when the server has been asked, of time.monotonic()
        self.url: str | None = None
        self.stop: bool | None = None
        self.error: str | None = None
        self._process: subprocess.Popen[str] | None = None
        self._failed = False
        if target is None:
            return
        command = [
            sys.executable,
            "-m",
            "finetune.tracking.mirror_process",
            json.dumps({**asdict(target), "pid": os.getpid()}),
        ]
        try:
            self._process = self._start(command)
        except OSError as error:  # no memory or no processes left for it: the run goes on without
            self.error = f"no mirror: {error}"
            self._failed = True
            return
        assert self._process.stdout is not None, "asked for in _start"
        threading.Thread(target=self._listen, args=(self._process.stdout,), name="mirror", daemon=True).start()

    def _start(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is for the run, which then tells the mirror how it ended
            env=child_environment(**{WAIT_VARIABLE: str(self._wait)}),
        )

    def _listen(self, lines: IO[str]) -> None:
        with lines:
            for line in lines:
                told = json.loads(line)
                self.url = told.get("url", self.url)
                self.error = told.get("error", self.error)
                if "connecting" in told:
                    self._connecting = time.monotonic()
                if "stop" in told:
                    self.stop = self.stop or told["stop"]

    def follow(self, run_dir: Path) -> None:
        """Copy what `run_dir` holds, and what is added to it from now on."""
        self._tell({"follow": str(run_dir.resolve())})

    def ask_stop(self) -> None:
        """Ask the server whether it wants this run to stop; `stop` tells, within ASK_SECONDS."""
        if self._process is None or self._process.poll() is not None:
            self.stop = bool(self.stop)
        self._tell({"ask": "stop"})

    def preempting(self) -> None:
        """Tell the server that this run will be ended from outside, and is to be handed out again."""
        self._tell({"preempting": True})

    def end(self, code: int, state: str, reason: str = "", cause: str = "") -> bool:
        """Tell how the run ended, wait for what is still to be sent, and return whether all of it has arrived.

        Waits less where the server does not answer; a client that is still starting, on a busy machine, is none.

        Args:
            code: the exit code.
            state: finished, failed or killed.
        """
        if self._process is None:
            return not self._failed
        self._tell({"end": {"code": code, "state": state, "reason": reason, "cause": cause}})
        with contextlib.suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        ended = time.monotonic()
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._process.wait(POLL_SECONDS) == 0
            limit, begun = ended + self._wait, self._connecting
            if self.url is None and begun is not None:
                limit = min(limit, max(ended, begun) + self._unreached)
            if time.monotonic() > limit:
                break
        self.kill()
        return False

    def kill(self) -> None:
        """End the mirror at once."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _tell(self, what: dict[str, Any]) -> None:
        """Send a line, unless the mirror is gone: a run never fails for it."""
        if self._process is None or self._process.stdin is None:
            return
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()


def wait_seconds() -> float:
    """Return how long the end of a run waits for W&B."""
    try:
        return float(os.environ.get(WAIT_VARIABLE, WAIT_SECONDS))
    except ValueError:
        return WAIT_SECONDS
