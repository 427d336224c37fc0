"""The process that copies a run directory to a W&B run, while the run goes on or after it; see mirror_client.py.

    python -m finetune.tracking.mirror_process '{"project": ..., "run": ..., ...}'

It reads commands from its standard input and reports what the server says on its standard output, a JSON object a
line. Nothing that happens here can stop the run: at worst, this process ends with exit code 1 and the copy is sent
later.
"""

import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from finetune.rundir import files, keys
from finetune.system import documents
from finetune.system.atomic import WriteError
from finetune.system.locks import hold
from finetune.system.redaction import without_login
from finetune.system.signals import SIGNALS
from finetune.tracking.mirror_client import WandbRunRef, wait_seconds

POLL_SECONDS = 0.5
RETRY_SECONDS = 15.0
LOCK_SECONDS = 120.0
MAX_LOST = 3  # times that W&B's own process may die
MAX_REFUSED = 2  # times that the server may refuse a run that is over: server or client may only have been busy
KILLED = "the run's process was killed (out of memory is the usual cause)"
RUN_KILLED = {"code": 137, "state": "killed", "reason": KILLED, "cause": "memory"}

Report = Callable[[dict[str, Any]], None]


class MirrorCommands:
    """The commands received from the run so far; a thread reads them.

    Attributes:
        run_dir: the directory to copy, once it is known.
        log_start: size of its log when copying began.
        end: code, state, reason and cause of the run's end; None while it goes on.
        preempting: whether the run will be ended from outside.
        asks_stop: whether the run asks if the server wants it to stop.
    """

    def __init__(self) -> None:
        self.run_dir: Path | None = None
        self.log_start = 0
        self.end: dict[str, Any] | None = None
        self.preempting = False
        self.asks_stop = False
        self._received = threading.Condition()
        threading.Thread(target=self._read, name="commands", daemon=True).start()

    def _read(self) -> None:
        rest = b""
        while added := os.read(0, 65536):  # not sys.stdin, whose lock a thread must not hold when Python ends
            *lines, rest = (rest + added).split(b"\n")
            for line in lines:
                self._take(json.loads(line))
        if self.end is None:  # the run's process has ended without a message
            self._take({"end": RUN_KILLED})

    def _take(self, command: dict[str, Any]) -> None:
        with self._received:
            if "follow" in command:
                self.run_dir = Path(command["follow"])
                self.log_start = _size(self.run_dir / keys.LOG)
            self.end = command.get("end", self.end)
            self.preempting = command.get("preempting", self.preempting)
            self.asks_stop = self.asks_stop or "ask" in command
            self._received.notify()

    def wait(self, seconds: float) -> None:
        """Return at the next command, or after `seconds`."""
        with self._received:
            self._received.wait(seconds)


def main(argument: str) -> int:
    """Mirror one run; return 0 if the server has all of it."""
    fields = json.loads(argument)
    pid = fields.pop("pid")
    report = _take_standard_output()
    # Batch systems signal every process of a job. This one lives on to tell the server how the run ended; W&B's own
    # process does not, and the run is then opened again.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    run_ref, commands = WandbRunRef(**fields), MirrorCommands()
    try:
        with tempfile.TemporaryDirectory(prefix="finetune-wandb-", ignore_cleanup_errors=True) as folder:
            # W&B's own files of the run are deleted at the end: the run directory holds everything.
            for variable in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_ARTIFACT_DIR"):
                os.environ[variable] = folder
            os.environ.pop("WANDB_MODE", None)
            return Mirror(run_ref, commands, report, Path(folder), pid).run()
    except Exception as error:
        report({"error": f"{commands.run_dir or run_ref.run}: {type(error).__name__}: {error}"})
        return 1


def _take_standard_output() -> Report:
    """Return a function that reports to the run on standard output; other output goes to W&B's console log only."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    lock = threading.Lock()

    def report(message: dict[str, Any]) -> None:
        with lock, contextlib.suppress(OSError):  # the run is gone
            channel.write(json.dumps(message) + "\n")

    return report


@dataclass
class Mirror:
    """Copies a run directory to a W&B run.

    Attributes:
        report: sends a message to the run.
        folder: for the files of W&B's client.
        pid: of the run's process.
    """

    run_ref: WandbRunRef
    commands: MirrorCommands
    report: Report
    folder: Path
    pid: int

    def run(self) -> int:
        """Copy all there is and will be; return 0 if the server has all of it."""
        commands = self.commands
        while commands.end is None and not (commands.run_dir and files.is_run_dir(commands.run_dir)):
            commands.wait(POLL_SECONDS)
        run_dir = commands.run_dir
        if run_dir is None or not files.is_run_dir(run_dir):
            return self.connect_and_copy(None)
        # One process at a time: a run may be published, or start again, while its last mirror still sends.
        with run_lock(run_dir, self.run_ref):
            path = _sync_record_path(run_dir, self.run_ref)
            record = documents.read_json(path) or {}
            if (
                commands.end is not None
                and record.get("sent")
                and record.get("state") == commands.end["state"] == "finished"
            ):
                return 0
            if not record:  # before the server is asked: if it does not answer, `publish` sends the run under this id
                ref = self.run_ref
                address = {"path": f"{ref.entity}/{ref.project}/{ref.run}"} if ref.entity else {}
                with contextlib.suppress(WriteError):
                    documents.write_json(path, {**address, "sent": False})
            return self.connect_and_copy(run_dir)

    def connect_and_copy(self, run_dir: Path | None) -> int:
        """Open the W&B run and copy everything, again after a lost connection; return 0 if the server has all of it."""
        from finetune.tracking import wandb_run

        self.report({"connecting": True})
        lost = refused = 0
        while True:
            try:
                self._copy(run_dir, is_repeated=lost > 0)
                return 0
            except TimeoutError as error:
                self.report({"error": str(error)})
                return 1
            except wandb_run.WandbError as error:  # the server does not answer, or refuses
                self.report({"error": f"{type(error).__name__}: {error}"})
                is_over = self.commands.end is not None
                refused += is_over
                if refused == MAX_REFUSED:
                    return 1
                wait = POLL_SECONDS if is_over else RETRY_SECONDS
            except (
                ConnectionError
            ) as error:  # W&B's own process has died, by a signal to all processes of a job perhaps
                self.report({"error": f"{type(error).__name__}: {error}"})
                lost, wait = lost + 1, 0.0
                if lost > MAX_LOST:
                    return 1
            wandb_run.forget()
            self.commands.wait(wait)

    def _copy(self, run_dir: Path | None, is_repeated: bool) -> None:
        from finetune.tracking import wandb_run

        client = wandb_run.ClientOptions(self.folder, self.pid, wait_seconds(), lambda: self.report({"stop": True}))
        run = wandb_run.open_run(self.run_ref, run_dir, client)
        self.report({"url": without_login(run.url or "")})
        try:
            self.copy_until_end(run, run_dir, is_repeated)
        except (TimeoutError, ConnectionError, wandb_run.WandbError):
            raise
        except Exception as error:  # a damaged run directory: the server must not take the run for finished
            wandb_run.finish_failed(run, 1, "failed", f"the copy broke: {type(error).__name__}: {error}", "code")
            raise

    def copy_until_end(self, run: Any, run_dir: Path | None, is_repeated: bool) -> None:
        """Send everything up to the end of the run.

        Args:
            run: a wandb.Run.
            is_repeated: this process has had the W&B run open before; its console log is not sent twice.

        Raises:
            TimeoutError: not all of it arrived in time.
            ConnectionError: W&B's own process is gone.
        """
        from finetune.tracking import wandb_run

        commands, record = self.commands, _SyncRecord(run_dir, self.run_ref, run)
        sent_rows, position = 0, commands.log_start if run.resumed and not is_repeated else 0
        if is_repeated and run_dir is not None:
            position = _size(run_dir / keys.LOG)
        has_told_preempting = has_asked = False
        history_size = 0
        while True:
            record.record_start()
            end = commands.end  # read before the rows: once it is set, all of them are there
            if commands.preempting and not has_told_preempting:
                has_told_preempting = True
                run.mark_preempting()
            if run_dir is not None:
                size = _size(run_dir / keys.HISTORY)
                if size != history_size:
                    sent_rows, history_size = wandb_run.send_rows(run, run_dir, sent_rows), size
                position = _print_log(run_dir / keys.LOG, position)
            if commands.asks_stop and not has_asked and end is None:
                has_asked = True
                is_stopped = wandb_run.is_stopped(run)
                if is_stopped is not None:
                    self.report({"stop": is_stopped})
            if end is not None:
                break
            commands.wait(POLL_SECONDS)
        if end["state"] == "finished" and run_dir is not None:
            wandb_run.finish_finished(run, run_dir)
        else:
            wandb_run.finish_failed(run, end["code"], end["state"], end["reason"], end["cause"])
        record.record_end(end["state"], sent_rows)


@contextlib.contextmanager
def run_lock(run_dir: Path, run_ref: WandbRunRef) -> Iterator[None]:
    """Hold the lock of a W&B run, or none on a full disk: at worst, a row is sent twice.

    Raises:
        Timeout: another process holds it.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(hold(run_dir / f".wandb-{run_ref.run}.lock", max_seconds=LOCK_SECONDS))
        except Timeout:
            raise
        except OSError:
            pass
        yield


class _SyncRecord:
    """The file in the run directory that records what a W&B run has been sent: wandb-ID.json."""

    def __init__(self, run_dir: Path | None, run_ref: WandbRunRef, run: Any) -> None:
        self._file = _sync_record_path(run_dir, run_ref) if run_dir is not None else None
        self._address = {"path": f"{run.entity}/{run.project}/{run.id}", "url": without_login(run.url)}
        self._is_written = False

    def record_start(self) -> None:
        """Record that not all has been sent, once; if the disk is full, the next call tries again."""
        if not self._is_written:
            self._write({"sent": False})

    def record_end(self, state: str, rows: int) -> None:
        """Record that the server has the complete run."""
        self._write({"sent": True, "state": state, "rows": rows, "time": time.time()})

    def _write(self, fields: dict[str, Any]) -> None:
        if self._file is not None:
            # A full disk costs the record only: without it, the run is sent once more.
            with contextlib.suppress(WriteError):
                record = documents.read_json(self._file) or {}
                documents.write_json(self._file, {**record, **self._address, **fields})
                self._is_written = True


def _sync_record_path(run_dir: Path, run_ref: WandbRunRef) -> Path:
    return run_dir / f"wandb-{run_ref.run}.json"


def _size(file: Path) -> int:
    """Return the size of a file in bytes, 0 if there is none."""
    return file.stat().st_size if file.exists() else 0


def _print_log(log: Path, position: int) -> int:
    """Print the complete lines that were added to a log since `position` (in bytes); return the new position."""
    if not log.exists():
        return position
    with log.open("rb") as file:
        file.seek(position)
        added = file.read()
    end = added.rfind(b"\n") + 1
    if end:
        sys.stdout.write(added[:end].decode("utf-8", errors="replace"))
    return position + end


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
