"""Who may run a run: numbered claim files in its directory, so that two processes never run the same one.

The highest-numbered `claim-N.json` says who runs it; its modification time is the heartbeat. Taking over from a dead
owner means creating N+1, which only one process can do (see `create_once`). No lock is held, so nothing has to
be undone when a process is killed.

On the same machine an owner is dead when its process is gone. Elsewhere (another machine, or another container on this
one, whose processes can't be looked at), when its heartbeat has stopped. An owner that was only suspended, or cut off,
learns before its next write that it has lost the run: it writes nothing more into the directory.
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

HEARTBEAT_SECONDS = 10.0  # an owner elsewhere that has been silent for STALE_SECONDS is taken for dead

_CLAIM = re.compile(r"claim-([1-9][0-9]*)\.json")


_given_back: set[Path] = set()  # claims that this process is done with, but could not say so on a read-only disk


class RunTakenError(Exception):
    """Another live process runs this run, or has taken it over."""

    exit_code = EXIT_BAD_INPUT


class _ClaimOwner(NamedTuple):
    """What a claim file says.

    Attributes:
        started: see `started`.
        released: whether the owner is done with the run, though its process may live on.
    """

    host: str
    pid: int
    started: float
    released: bool


@cache
def _host() -> str:
    """Return a name for all processes that this one can look at by their ids: they mean nothing on another machine,
    after a reboot, or in another container on this machine.
    """
    boot = Path("/proc/sys/kernel/random/boot_id")
    parts = [socket.gethostname(), boot.read_text().strip() if boot.exists() else str(uuid.getnode())]
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return "/".join(parts)


def process_start_time(pid: int) -> float | None:
    """Return when a process was started, or None if it has ended; a process id is used again, with this it is not.

    On Linux in ticks since boot: a time of day changes, for a process that runs already, when the clock is set.
    """
    if Path("/proc/self/stat").exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # the last: another user's, who hides them
            return None
        return None if fields[0] in "ZX" else float(fields[19])  # proc(5): state and starttime
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def _owner(released: bool) -> str:
    """Return what a claim file says of this process."""
    pid = os.getpid()
    return json.dumps({"host": _host(), "pid": pid, "started": process_start_time(pid), "released": released}) + "\n"


def _read(claim: Path) -> _ClaimOwner | None:
    """Return what a claim file says, or None where it is empty or torn: it is being written, or power was cut.

    Raises:
        OSError: it can't be read.
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
    """Whether the owner that a claim file names lives; if that is unknown, the heartbeat decides."""
    if claim.absolute() in _given_back:
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
    except OSError:  # an older state of the folder, over NFS, say; the next look will tell
        return True


def _is_hidden(pid: int) -> bool:
    """Whether there is a process of another user's that this one may not see."""
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
    _given_back.discard(claim.absolute())
    return claim


def _describe_owner(claim: Path) -> str:
    try:
        owner = _read(claim)
    except OSError:
        owner = None
    return "" if owner is None else f": process {owner.pid} on {owner.host.partition('/')[0]}"


class Claim:
    """The right to run a run, as long as nobody has taken it over.

    Attributes:
        attempt: 1 the first time this run is started, 2 the second time, and so on.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.attempt = _number(file.name)

    def owns(self, name: str) -> bool:
        """Whether nobody but the owner may be writing the file of this name.

        Agents write a state too, but only to say how a run ended, and can do without.
        """
        return name != keys.STOP and not name.startswith("wandb-") and _number(name) <= self.attempt

    def check(self) -> None:
        """Do nothing, as long as the run is this process's.

        Raises:
            RunTakenError: another process took the run over while this one was silent (a suspended machine, say).
        """
        if _newest(self._file.parent)[0] > self.attempt:
            raise RunTakenError(f"{self._file.parent} was taken over by another process")

    def beat(self) -> None:
        """Say that the owner lives.

        Raises:
            RunTakenError: see `check`.
            OSError: the file can't be written.
        """
        self.check()
        # What is written gets the time of the machine that has the disk. A time that is set may be this machine's.
        with raising_write_error(self._file), self._file.open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\n")

    def release(self) -> None:
        """Say that the owner, though its process may live on, is done with this run."""
        try:
            write_atomic(self._file, _owner(released=True))
        except OSError:  # on a full disk, say, where a file can still be written over
            _given_back.add(self._file.absolute())
            # It must stay: to an earlier owner who was silent, and wakes up, it says that the run is not theirs.
            size = self._file.stat().st_size
            with self._file.open("rb+") as file:
                file.write(_owner(released=True).encode().rstrip().ljust(size - 1) + b"\n")


@contextlib.contextmanager
def hold_claim(run_dir: Path) -> Iterator[Claim]:
    """Hold the claim on a run, with a heartbeat from a thread; the directory is made if need be.

    From the moment on that another process has taken the run over, files can't be put into it with `record` any more.

    Raises:
        RunTakenError: another live process holds it, or has taken it over meanwhile.
    """
    with raising_write_error(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
    claim = Claim(_take(run_dir))
    delete_stale_temporaries(run_dir, claim.owns)
    done = threading.Event()

    def keep_beating() -> None:
        with contextlib.suppress(RunTakenError):  # the run itself finds out at its next write
            while not done.wait(HEARTBEAT_SECONDS):
                with contextlib.suppress(OSError):  # a file server that is away for a moment
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
