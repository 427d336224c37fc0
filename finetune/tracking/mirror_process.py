"""The process that copies a run directory to a W&B run, while the run goes on or after it: see mirror_client.py.

    python -m finetune.tracking.mirror_process '{"project": ..., "run": ..., ...}'

It reads orders from its standard input and tells what the server says on its standard output, a JSON object a line.
Nothing it meets can stop the run: the worst is that it ends with exit code 1, and that the copy is sent another time.
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
MAX_LOST = 3  # times that W&B's own process may die under a run
MAX_REFUSED = 2  # times that a run which is over is not taken: a client or server may only have been busy
GONE = {"code": 137, "state": "killed", "reason": "the run's process was killed (out of memory is the usual cause)",
        "cause": "memory"}  # fmt: skip

Say = Callable[[dict[str, Any]], None]


class MirrorCommands:
    """What the run has said so far; a thread reads it."""

    def __init__(self) -> None:
        self.run_dir: Path | None = None
        self.log_start = 0  # of what the run prints from now on
        self.end: dict[str, Any] | None = None
        self.preempting = False
        self.asked = False
        self._news = threading.Condition()
        threading.Thread(target=self._read, name="orders", daemon=True).start()

    def _read(self) -> None:
        rest = b""
        while added := os.read(0, 65536):  # not sys.stdin, whose lock a thread must not hold when Python ends
            *lines, rest = (rest + added).split(b"\n")
            for line in lines:
                self._take(json.loads(line))
        if self.end is None:  # the run's process has ended without a word
            self._take({"end": GONE})

    def _take(self, order: dict[str, Any]) -> None:
        with self._news:
            if "follow" in order:
                self.run_dir = Path(order["follow"])
                self.log_start = _size(self.run_dir / keys.LOG)
            self.end = order.get("end", self.end)
            self.preempting = order.get("preempting", self.preempting)
            self.asked = self.asked or "ask" in order
            self._news.notify()

    def wait(self, seconds: float) -> None:
        """Return at the next order, or after `seconds`."""
        with self._news:
            self._news.wait(seconds)


def main(argument: str) -> int:
    """Mirror one run; return 0 if the server has all of it."""
    said = json.loads(argument)
    pid = said.pop("pid")
    say = _take_standard_streams()
    # Batch systems signal every process of a job. This one lives on to tell the server how the run ended; W&B's own
    # process does not, and the run is then opened again.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    orders = MirrorCommands()
    target = WandbRunRef(**said)
    try:
        with tempfile.TemporaryDirectory(prefix="finetune-wandb-", ignore_cleanup_errors=True) as name:
            # The client's own log of the run is of no use: the run directory has it all. Nothing is left on the disk.
            for variable in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_ARTIFACT_DIR"):
                os.environ[variable] = name
            os.environ.pop("WANDB_MODE", None)
            return _mirror(target, orders, Path(name), pid, say)
    except Exception as error:
        say({"error": f"{orders.run_dir or target.run}: {type(error).__name__}: {error}"})
        return 1


def _take_standard_streams() -> Say:
    """Keep the way to the run for itself; what is printed from now on goes to W&B's console log alone."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    lock = threading.Lock()

    def say(what: dict[str, Any]) -> None:
        with lock, contextlib.suppress(OSError):  # the run has gone
            channel.write(json.dumps(what) + "\n")

    return say


def _mirror(target: WandbRunRef, orders: MirrorCommands, folder: Path, pid: int, say: Say) -> int:

    while orders.end is None and not (orders.run_dir and files.is_run_dir(orders.run_dir)):
        orders.wait(POLL_SECONDS)
    run_dir = orders.run_dir if orders.run_dir and files.is_run_dir(orders.run_dir) else None
    if run_dir is None:
        return _connect_and_copy(target, orders, None, folder, pid, say)
    # One at a time: a run may be published while its mirror still sends, or start again while its last one does.
    with _run_lock(run_dir, target):
        note = documents.read_json(_sync_record_of(run_dir, target)) or {}
        if orders.end is not None and note.get("sent") and note.get("state") == orders.end["state"] == "finished":
            return 0
        if not note:  # before the server is asked: if it does not answer, `publish` sends the run under this very id
            about = {"path": f"{target.entity}/{target.project}/{target.run}"} if target.entity else {}
            with contextlib.suppress(WriteError):
                documents.write_json(_sync_record_of(run_dir, target), {**about, "sent": False})
        return _connect_and_copy(target, orders, run_dir, folder, pid, say)


@contextlib.contextmanager
def _run_lock(run_dir: Path, target: WandbRunRef) -> Iterator[None]:
    """Hold the lock of a W&B run, or none where none can be made, on a full disk, say: what is sent twice is one row.

    Raises:
        Timeout: another process holds it.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(hold(run_dir / f".wandb-{target.run}.lock", max_seconds=LOCK_SECONDS))
        except Timeout:
            raise
        except OSError:
            pass
        yield


def _connect_and_copy(
    target: WandbRunRef, orders: MirrorCommands, run_dir: Path | None, folder: Path, pid: int, say: Say
) -> int:
    """Open the run and copy all there is to it, as often as it takes."""
    from finetune.tracking import wandb_run

    say({"connecting": True})
    lost = refused = 0
    while True:
        try:
            run = wandb_run.open_run(target, run_dir, folder, pid, wait_seconds(), lambda: say({"stop": True}))
            say({"url": without_login(run.url or "")})
            try:
                _copy_until_end(run, run_dir, orders, target, say, again=lost > 0)
            except (TimeoutError, ConnectionError, wandb_run.WandbError):
                raise
            except Exception as error:  # a damaged run directory: the server must not take the run for finished
                wandb_run.finish_failed(run, 1, "failed", f"the copy broke: {type(error).__name__}: {error}", "code")
                raise
            return 0
        except TimeoutError as error:
            say({"error": str(error)})
            return 1
        except wandb_run.WandbError as error:  # the server does not answer, or refuses
            say({"error": f"{type(error).__name__}: {error}"})
            refused += orders.end is not None
            if refused == MAX_REFUSED:
                return 1
            wait = RETRY_SECONDS if orders.end is None else POLL_SECONDS
        except ConnectionError as error:  # W&B's own process has died, by a signal to all processes of a job perhaps
            say({"error": f"{type(error).__name__}: {error}"})
            lost, wait = lost + 1, 0.0
            if lost > MAX_LOST:
                return 1
        wandb_run.forget()
        orders.wait(wait)


def _copy_until_end(
    run: Any, run_dir: Path | None, orders: MirrorCommands, target: WandbRunRef, say: Say, again: bool
) -> None:
    """Send all there is and will be, up to the end of the run.

    Args:
        again: this process has had this run open before; its console log is not sent twice.

    Raises:
        TimeoutError: not all of it arrived in time.
        ConnectionError: W&B's own process is gone.
    """
    from finetune.tracking import wandb_run

    note = _SyncRecord(run_dir, target, run)
    sent, position = 0, orders.log_start if run.resumed and not again else 0
    if again and run_dir is not None:
        position = _size(run_dir / keys.LOG)
    told_preempting = asked = False
    size = 0  # of the history when it was last read
    while True:
        note.keep()
        end = orders.end  # before the rows are read: all of them are there once it is set
        if orders.preempting and not told_preempting:
            told_preempting = True
            run.mark_preempting()
        if run_dir is not None:
            now = _size(run_dir / keys.HISTORY)
            if now != size:
                sent, size = wandb_run.send_rows(run, run_dir, sent), now
            position = _print_log(run_dir / keys.LOG, position)
        if orders.asked and not asked and end is None:
            asked = True
            stopped = wandb_run.is_stopped(run)
            if stopped is not None:
                say({"stop": stopped})
        if end is not None:
            break
        orders.wait(POLL_SECONDS)
    if end["state"] == "finished" and run_dir is not None:
        wandb_run.finish_finished(run, run_dir)
    else:
        wandb_run.finish_failed(run, end["code"], end["state"], end["reason"], end["cause"])
    note.sent(end["state"], sent)


class _SyncRecord:
    """The file in the run directory that tells which W&B run has been sent what."""

    def __init__(self, run_dir: Path | None, target: WandbRunRef, run: Any) -> None:
        self._file = _sync_record_of(run_dir, target) if run_dir is not None else None
        self._about = {"path": f"{run.entity}/{run.project}/{run.id}", "url": without_login(run.url)}
        self._is_kept = False

    def keep(self) -> None:
        """Note that not all has been sent; what can't be written, on a full disk, say, when it is next asked for."""
        if not self._is_kept:
            self._write({"sent": False})

    def sent(self, state: str, rows: int) -> None:
        """Note that the server has all there is."""
        self._write({"sent": True, "state": state, "rows": rows, "time": time.time()})

    def _write(self, more: dict[str, Any]) -> None:
        if self._file is not None:
            # The server has all there is, whether that can be noted or not. What is not noted is sent once more.
            with contextlib.suppress(WriteError):
                documents.write_json(self._file, {**(documents.read_json(self._file) or {}), **self._about, **more})
                self._is_kept = True


def _sync_record_of(run_dir: Path, target: WandbRunRef) -> Path:
    return run_dir / f"wandb-{target.run}.json"


def _size(file: Path) -> int:
    """Return the size of a file in bytes, 0 where there is none."""
    return file.stat().st_size if file.exists() else 0


def _print_log(log: Path, position: int) -> int:
    """Print what was added to the log since `position` (in bytes), whole lines only; return the new position."""
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
