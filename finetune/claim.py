"""Who may run a run: numbered claim files in its directory, so that two processes never run the same one.

The highest-numbered `claim-N.json` says who runs it; its modification time is the heartbeat. Taking over from a dead
owner means creating N+1, which only one process can do: making a hard link fails if the name exists, on every local
file system and on NFS. No lock is held, so nothing has to be undone when a process is killed.
"""

import contextlib
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import psutil

from finetune.record import write_atomic
from finetune.writing import explained

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 120.0  # an owner on another machine that has been silent for this long is taken for dead


_given_back: set[Path] = set()  # claims that this process is done with, but could not say so on a read-only disk


class TakenError(Exception):
    """Another live process runs this run, or has taken it over."""


@cache
def _host() -> str:
    """Return a name for this boot of this machine: a process id means nothing on another, or after a reboot."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()}/{boot.read_text().strip() if boot.exists() else uuid.getnode()}"


def _owner(released: bool) -> str:
    """Return what a claim file says of this process."""
    started = psutil.Process().create_time()
    return json.dumps({"host": _host(), "pid": os.getpid(), "started": started, "released": released}) + "\n"


def _newest(run_dir: Path) -> tuple[int, Path | None]:
    """Return the highest claim number and its file, or (0, None)."""
    claims = [(int(path.stem.removeprefix("claim-")), path) for path in run_dir.glob("claim-*.json")]
    return max(claims, default=(0, None))


def _silent_seconds(claim: Path) -> float:
    """Return the age of the heartbeat by the file system's own clock, so that machines' clocks need not agree."""
    probe = claim.with_name(f".probe-{uuid.uuid4().hex[:8]}")
    probe.touch()
    try:
        return probe.stat().st_mtime - claim.stat().st_mtime
    finally:
        probe.unlink()


def _owner_lives(claim: Path) -> bool:
    if claim.absolute() in _given_back:
        return False
    try:
        owner = json.loads(claim.read_text())
        released, host, pid, started = owner["released"], owner["host"], int(owner["pid"]), float(owner["started"])
    except (ValueError, LookupError, TypeError, OverflowError):  # damaged: its heartbeat tells
        return _silent_seconds(claim) < STALE_SECONDS
    if released:
        return False
    if host != _host():
        return _silent_seconds(claim) < STALE_SECONDS
    try:
        # A process id is used again; with its start time it is not.
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, ValueError, OverflowError):
        return False


def is_alive(run_dir: Path) -> bool:
    """Whether a live process runs this run now."""
    claim = _newest(run_dir)[1]
    return claim is not None and _owner_lives(claim)


def attempts(run_dir: Path) -> int:
    """Return how many times this run has been started."""
    return _newest(run_dir)[0]


def _take(run_dir: Path) -> Path:
    """Create the next claim and return it, or raise TakenError."""
    number, current = _newest(run_dir)
    if current is not None and _owner_lives(current):
        raise TakenError(f"{run_dir} is being run by another process: {current.read_text(errors='replace').strip()}")
    draft = run_dir / f".claim-{uuid.uuid4().hex[:8]}"
    claim = run_dir / f"claim-{number + 1}.json"
    try:
        with explained(claim):
            draft.write_text(_owner(released=False))
            os.link(draft, claim)
        _given_back.discard(claim.absolute())
    except FileExistsError:
        raise TakenError(f"{run_dir} has just been taken by another process") from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
    return claim


class Claim:
    """The right to run a run, as long as nobody has taken it over.

    Attributes:
        attempt: 1 the first time this run is started, 2 the second time, and so on.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.attempt = int(file.stem.removeprefix("claim-"))

    def beat(self) -> None:
        """Say that the owner lives.

        Raises:
            TakenError: another process took the run over while this one was silent (a suspended machine, say).
        """
        if self._file.with_name(f"claim-{self.attempt + 1}.json").exists():
            raise TakenError(f"{self._file.parent} was taken over by another process")
        with explained(self._file):
            os.utime(self._file)

    def release(self) -> None:
        """Say that the owner, though its process may live on, is done with this run."""
        try:
            write_atomic(self._file, _owner(released=True))
        except OSError:  # on a full disk, say, where a file can still be deleted
            _given_back.add(self._file.absolute())
            self._file.unlink()


@contextlib.contextmanager
def claimed(run_dir: Path) -> Iterator[Claim]:
    """Hold the claim on a run, with a heartbeat from a thread; the directory is made if need be.

    Raises:
        TakenError: another live process holds it.
    """
    with explained(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
    claim = Claim(_take(run_dir))
    done = threading.Event()

    def keep_beating() -> None:
        with contextlib.suppress(TakenError):  # the run itself finds out at its next epoch
            while not done.wait(HEARTBEAT_SECONDS):
                with contextlib.suppress(OSError):  # of a moment, perhaps
                    claim.beat()

    thread = threading.Thread(target=keep_beating, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield claim
    finally:
        done.set()
        thread.join()
        # What ended the run is to be told, not this; and a dead owner gives way anyway.
        with contextlib.suppress(OSError):
            claim.release()
