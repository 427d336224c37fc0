"""The mirror of a run on W&B, as the run sees it: a process beside it that copies its directory, or nothing.

The run writes its directory and never waits for W&B. The mirror process (mirror_process.py) reads that directory. It
gets commands on its standard input and reports on its standard output, a JSON object a line: where the directory is,
how the run ended; when the server was reached, whether the server asks the run to stop. If the run's process dies, the
mirror's input ends. What W&B has missed is sent later by `python -m finetune.publish`.
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

# How long the end of a run waits for the rest to be sent (see `MirrorClient.end`).
WAIT_VARIABLE, WAIT_SECONDS = "FINETUNE_WANDB_WAIT", 60.0
UNREACHED_SECONDS = 10.0  # how long if the server does not answer and the user has not set a time
POLL_SECONDS = 0.1
ASK_SECONDS = 18.0  # W&B's client learns of a stop within 15 s; its agent kills a run after 30 s


@dataclass(frozen=True)
class WandbRunRef:
    """A run on a W&B server.

    Attributes:
        entity: None for the account's default.
        sweep: the id of the sweep it belongs to, or None.
        locked: the sweep's parameters are fixed on the server, as for a run that W&B's agent has been handed.
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
    """Return whether WANDB_MODE switches W&B off, or to offline mode."""
    return os.environ.get("WANDB_MODE", "online") not in ("online", "shared", "")


class MirrorClient:
    """The mirror process of a run; none if the run is not on W&B.

    Args:
        wait: maximum seconds that `end` waits (default: FINETUNE_WANDB_WAIT, else WAIT_SECONDS).

    Attributes:
        url: of the run on the server, once the server has been reached.
        stop: whether the server asks the run to stop; None while that is not known.
        error: the last error that the mirror reported.
    """

    def __init__(self, run_ref: WandbRunRef | None, wait: float | None = None) -> None:
        self._wait = wait_seconds() if wait is None else wait
        is_set = wait is not None or WAIT_VARIABLE in os.environ
        self._unreached = self._wait if is_set else UNREACHED_SECONDS
        self._connecting: float | None = None  # time.monotonic() when the mirror asked the server
        self.url: str | None = None
        self.stop: bool | None = None
        self.error: str | None = None
        self._process: subprocess.Popen[str] | None = None
        self._failed = False
        if run_ref is None:
            return
        command = [
            sys.executable,
            "-m",
            "finetune.tracking.mirror_process",
            json.dumps({**asdict(run_ref), "pid": os.getpid()}),
        ]
        try:
            self._process = self._start(command)
        except OSError as error:  # no memory or process is left: the run goes on without a mirror
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
                message = json.loads(line)
                self.url = message.get("url", self.url)
                self.error = message.get("error", self.error)
                if "connecting" in message:
                    self._connecting = time.monotonic()
                if "stop" in message:
                    self.stop = self.stop or message["stop"]

    def follow(self, run_dir: Path) -> None:
        """Start to copy `run_dir`, and everything that is added to it."""
        self._send({"follow": str(run_dir.resolve())})

    def ask_stop(self) -> None:
        """Ask the server whether it wants this run to stop; `stop` has the answer within ASK_SECONDS."""
        if self._process is None or self._process.poll() is not None:
            self.stop = bool(self.stop)
        self._send({"ask": "stop"})

    def mark_preempting(self) -> None:
        """Tell the server that this run is ended from outside, so that it hands the run out again."""
        self._send({"preempting": True})

    def end(self, code: int, state: str, reason: str = "", cause: str = "") -> bool:
        """Report how the run ended, wait for the rest to be sent, and return whether all of it has arrived.

        The wait is shorter if the server does not answer. It starts once W&B's client has started, which takes long on
        a busy machine.

        Args:
            code: the exit code.
            state: finished, failed or killed.
        """
        if self._process is None:
            return not self._failed
        self._send({"end": {"code": code, "state": state, "reason": reason, "cause": cause}})
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
        """Kill the mirror."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _send(self, command: dict[str, Any]) -> None:
        """Send a command, unless the mirror is gone: a run never fails because of it."""
        if self._process is None or self._process.stdin is None:
            return
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()


def wait_seconds() -> float:
    """Return how long the end of a run waits for W&B."""
    try:
        return float(os.environ.get(WAIT_VARIABLE, WAIT_SECONDS))
    except ValueError:
        return WAIT_SECONDS
