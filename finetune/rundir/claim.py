"""Exclusive ownership of run directories by numbered claim files, so that two processes never run the same run.

The highest-numbered `claim-N.json` names the owner; its modification time is the heartbeat. Taking over from a dead
owner means creating N+1, which only one process can do (see `create_exclusive`). No lock is held, so nothing has to be
undone when a process is killed.

On the same machine an owner is dead when its process is gone. Elsewhere (on another machine, or in another container of
this one, where process ids mean nothing here) it is dead when its heartbeat has stopped. An owner that was suspended or
cut off notices before its next write that it has lost the run, and writes nothing more into the directory.
"""

import contextlib
import json
import os
import re
import socket
import threading
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import psutil

from finetune.errors import EXIT_BAD_INPUT
from finetune.rundir import keys
from finetune.system.atomic import (
    STALE_SECONDS,
    create_exclusive,
    delete_stale_temporaries,
    raising_write_error,
    seconds_since_write,
    write_atomic,
    write_guard,
)

HEARTBEAT_SECONDS = 10.0  # an owner elsewhere counts as dead after STALE_SECONDS without a heartbeat

_CLAIM = re.compile(r"claim-([1-9][0-9]*)\.json")
_released: set[Path] = set()  # claims that this process has released, but could not write to a full disk


class RunTakenError(Exception):
    """Another live process runs this run, or has taken it over."""

    exit_code = EXIT_BAD_INPUT


class _ClaimOwner(NamedTuple):
    """The content of a claim file.

    Attributes:
        host: see `_host`.
        started: see `process_start_time`.
        released: whether the owner is done with the run, although its process may live on.
    """

    host: str
    pid: int
    started: float
    released: bool


@cache
def _host() -> str:
    """Return an id of this PID namespace (host, boot, container): process ids are comparable only within it."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    parts = [socket.gethostname(), boot.read_text().strip() if boot.exists() else str(uuid.getnode())]
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return "/".join(parts)


def process_start_time(pid: int) -> float | None:
    """Return when a process started, or None if it has ended. Ids are reused; (id, start time) is unique until reboot.

    On Linux in ticks since boot, as setting the clock changes a running process's start as a time of day.
    """
    if Path("/proc/self/stat").exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # the last: of another user, who hides it
            return None
        return None if fields[0] in "ZX" else float(fields[19])  # proc(5): state and starttime
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def _owner(released: bool) -> str:
    """Return the content of this process's claim file."""
    pid = os.getpid()
    return json.dumps({"host": _host(), "pid": pid, "started": process_start_time(pid), "released": released}) + "\n"


def _read(claim: Path) -> _ClaimOwner | None:
    """Return a claim file's content, or None if it is empty or torn: it is being written, or power was cut.

    Raises:
        OSError: the file can't be read.
    """
    try:
        fields = json.loads(claim.read_bytes())
        return _ClaimOwner(str(fields["host"]), int(fields["pid"]), float(fields["started"]), bool(fields["released"]))
    except (ValueError, LookupError, TypeError):
        return None


def _newest(run_dir: Path) -> tuple[int, Path | None]:
    """Return the highest claim number and its file, or (0, None)."""
    claims = [(number, path) for path in run_dir.glob("claim-*.json") if (number := _number(path.name))]
    return max(claims, default=(0, None))


def _number(name: str) -> int:
    """Return N of claim-N.json, 0 for other names."""
    match = _CLAIM.fullmatch(name)
    return int(match[1]) if match else 0


def _owner_lives(claim: Path) -> bool:
    """Whether the owner of a claim lives; the heartbeat decides where its process is not visible."""
    if claim.absolute() in _released:
        return False
    try:
        owner = _read(claim)
        if owner is not None and owner.released:
            return False
        if owner is not None and owner.host == _host():
            since = process_start_time(owner.pid)
            if since is not None:
                return abs(since - owner.started) < 1
            if not _is_hidden(owner.pid):
                return False
        return seconds_since_write(claim) < STALE_SECONDS
    except OSError:  # over NFS, the listing may be of an older state of the folder; the next one will be right
        return True


def _is_hidden(pid: int) -> bool:
    """Whether this is a process of another user that is not visible to this one."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        pass
    return False


def is_alive(run_dir: Path) -> bool:
    """Whether a live process runs this run now."""
    claim = _newest(run_dir)[1]
    return claim is not None and _owner_lives(claim)


def attempts(run_dir: Path) -> int:
    """Return how many times this run has been started."""
    return _newest(run_dir)[0]


def _take(run_dir: Path) -> Path:
    """Create the next claim and return it, or raise RunTakenError."""
    number, current = _newest(run_dir)
    if current is not None and _owner_lives(current):
        raise RunTakenError(f"{run_dir} is being run by another process{_describe_owner(current)}")
    claim = run_dir / f"claim-{number + 1}.json"
    with raising_write_error(claim):
        created = create_exclusive(claim, _owner(released=False))
    if not created:
        raise RunTakenError(f"{run_dir} has just been taken by another process")
    _released.discard(claim.absolute())
    return claim


def _describe_owner(claim: Path) -> str:
    try:
        owner = _read(claim)
    except OSError:
        owner = None
    return "" if owner is None else f": process {owner.pid} on {owner.host.partition('/')[0]}"


class Claim:
    """The right to run a run, as long as no other process has taken it over.

    Attributes:
        attempt: 1 the first time this run is started, 2 the second time, and so on.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.attempt = _number(file.name)

    def owns(self, name: str) -> bool:
        """Whether only the owner writes the file of this name.

        Agents write the state too, but only to record how a run ended; they tolerate its loss.
        """
        return name != keys.STOP and not name.startswith("wandb-") and _number(name) <= self.attempt

    def check(self) -> None:
        """Raise RunTakenError if another process took the run over, for example while this machine was suspended."""
        if _newest(self._file.parent)[0] > self.attempt:
            raise RunTakenError(f"{self._file.parent} was taken over by another process")

    def beat(self) -> None:
        """Renew the heartbeat.

        Raises:
            RunTakenError: another process took the run over.
            OSError: the file can't be written.
        """
        self.check()
        # A write gets the file server's time; `os.utime` may set this machine's.
        with raising_write_error(self._file), self._file.open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\n")

    def release(self) -> None:
        """Record that the owner is done with the run, although its process may live on."""
        try:
            write_atomic(self._file, _owner(released=True))
        except OSError:  # a full disk, where a file can still be overwritten
            _released.add(self._file.absolute())
            # The file must stay: it tells an earlier owner that was suspended, and wakes up, that it lost the run.
            size = self._file.stat().st_size
            with self._file.open("rb+") as file:
                file.write(_owner(released=True).encode().rstrip().ljust(size - 1) + b"\n")


@contextlib.contextmanager
def hold_claim(run_dir: Path) -> Iterator[Claim]:
    """Hold the claim on a run within the block, with a heartbeat from a thread; creates the directory.

    Once another process has taken the run over, this one can't change files in it any more (see `write_guard`).

    Raises:
        RunTakenError: another live process holds the claim, or has taken it over.
    """
    with raising_write_error(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
    claim = Claim(_take(run_dir))
    delete_stale_temporaries(run_dir, claim.owns)
    done = threading.Event()

    def keep_beating() -> None:
        with contextlib.suppress(RunTakenError):  # the run itself notices at its next write
            while not done.wait(HEARTBEAT_SECONDS):
                with contextlib.suppress(OSError):  # a file server that does not answer for a moment
                    claim.beat()

    thread = threading.Thread(target=keep_beating, name="heartbeat", daemon=True)
    thread.start()
    try:
        with write_guard(run_dir, claim.check):
            yield claim
    finally:
        done.set()
        thread.join()
        # The error that ended the run matters more, and the claim of a dead owner expires anyway.
        with contextlib.suppress(OSError):
            claim.release()
