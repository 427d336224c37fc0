"""The kinds of faults that one run at a time is given: a list to which others are added in a few lines.

A fault is a function of the bench and a random stream that does it once, and returns what went wrong after it: nothing,
if the run comes to the end and to the very results of the undisturbed one.
"""

import errno
import fcntl
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from chaos.harness import LINE, Harness
from finetune.cache.entry_writer import ABOUT
from finetune.rundir import claim, keys
from finetune.system.atomic import STALE_SECONDS

CHECKPOINTS = (keys.LAST, keys.PREVIOUS, keys.BEST)
TEXTS = (keys.HISTORY, keys.CONFIG, keys.SPLITS, keys.STATE)
RESULTS = (keys.SUMMARY, keys.CONFIG, keys.HISTORY, keys.PREDICTIONS, keys.SPLITS, keys.BEST)

Damage = Callable[[Path, random.Random], None]  # harms a file, or a run directory

Inject = Callable[[Harness, random.Random], list[str]]


class Fault(NamedTuple):
    """A kind of fault.

    Attributes:
        name: for the table.
        inject: does it once.
        times: how often `make chaos` does it.
    """

    name: str
    inject: Inject
    times: int


def damaged(name: str, damage: Damage, times: int = 5) -> Fault:
    """Return a fault that befalls the directory of a run that was killed half-way."""

    def inject(bench: Harness, rng: random.Random) -> list[str]:
        folder = bench.halfway()
        damage(folder / "run", rng)
        return bench.finish(folder)

    return Fault(name, inject, times)


def damaged_cache(name: str, damage: Damage, times: int = 5) -> Fault:
    """Return a fault that befalls all data in the cache that a run was using when it was killed."""

    def inject(bench: Harness, rng: random.Random) -> list[str]:
        folder = bench.halfway(line=1)  # two of its three epochs, and what they need, are to come
        files = sorted(path for path in (folder / "cache/store").glob("*/*") if path.stat().st_size)
        for path in files:
            if path.name != ABOUT:  # without which the data would not be looked at
                damage(path, rng)
        return bench.finish(folder)

    return Fault(name, inject, times)


def damaged_result(name: str, times: int = 5) -> Fault:
    """Return a fault that befalls a file of a finished run, which is then started again."""

    def inject(bench: Harness, rng: random.Random) -> list[str]:
        folder = bench.finished()
        flip(folder / "run" / name, rng)
        return bench.finish(folder)

    return Fault(f"{name} of a finished run with a flipped bit", inject, times)


def handicapped(name: str, handicap: Callable[[], None], times: int = 3) -> Fault:
    """Return a fault of the file system that a run meets from its start, with a crash in the middle of its way."""

    def inject(bench: Harness, rng: random.Random) -> list[str]:
        folder = bench.folder()
        bench.crash(folder, rng.randrange(len(bench.points)), before=handicap)
        return bench.finish(folder, before=handicap)

    return Fault(name, inject, times)


def crash(bench: Harness, rng: random.Random) -> list[str]:
    """End the run at a point of its file operations."""
    return crash_at(bench, rng.randrange(len(bench.points)))


def crash_at(bench: Harness, point: int) -> list[str]:
    """End the run at this point, and start it again."""
    folder = bench.folder()
    return bench.crash(folder, point) + bench.finish(folder)


def crash_thrice(bench: Harness, rng: random.Random) -> list[str]:
    """End the run at a point, and the next two attempts early on."""
    folder = bench.folder()
    told = bench.crash(folder, rng.randrange(len(bench.points)))
    for _ in range(2):
        bench.crash(folder, rng.randrange(1, 60))  # an attempt that has little left to do may not come so far
    return told + bench.finish(folder)


def crash_in_saving(bench: Harness, rng: random.Random) -> list[str]:
    """End a run that was asked to stop in mid-epoch while it saves."""
    folder = bench.folder()
    bench.crash(folder, len(bench.points), asks=rng.randint(4, 9))  # stops and saves
    last = max(number for number, (what, path) in enumerate(bench.points) if (what, path) == LINE)
    bench.crash(folder, rng.randrange(20, last), asks=rng.randint(1, 3))
    return bench.finish(folder)


def full_disk(bench: Harness, rng: random.Random) -> list[str]:
    """Run on a disk that becomes full at a point, then make room and start the run again."""
    folder = bench.folder()
    return bench.fill(folder, rng.randrange(len(bench.points))) + bench.finish(folder)


def cut(path: Path, rng: random.Random) -> None:
    """Cut a file short."""
    os.truncate(path, rng.randrange(path.stat().st_size))


def flip(path: Path, rng: random.Random) -> None:
    """Turn a bit of a file over."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _of(name: str, damage: Damage) -> Damage:
    """Return what does this damage to a file of a run directory."""
    return lambda run_dir, rng: damage(run_dir / name, rng)


def _torn_line(run_dir: Path, rng: random.Random) -> None:
    with (run_dir / keys.HISTORY).open("a") as file:
        file.write('\n{"epoch": 2, "train/loss": 0.123456'[: rng.randint(1, 36)])


def _owned(run_dir: Path, silent_seconds: float, **said: Any) -> None:
    """Put a claim of another owner on top."""
    number = claim.attempts(run_dir) + 1
    file = run_dir / f"claim-{number}.json"
    content = {"host": "elsewhere/1/pid:[1]", "pid": os.getpid(), "started": 1.0, "released": False, **said}
    file.write_text(json.dumps(content))
    then = time.time() - silent_seconds
    os.utime(file, (then, then))


def _dead_elsewhere(run_dir: Path, _: random.Random) -> None:
    _owned(run_dir, STALE_SECONDS + 10)


def _other_boot(run_dir: Path, _: random.Random) -> None:
    """Leave the claim of a process of this id before a reboot, long ago."""
    host = claim._host().split("/")
    _owned(run_dir, STALE_SECONDS + 10, host="/".join([host[0], "another boot", *host[2:]]))


def _id_used_again(run_dir: Path, _: random.Random) -> None:
    """Leave the claim of a dead process whose id another one has now, with a fresh heartbeat."""
    _owned(run_dir, 0, host=claim._host())


def _torn_claim(run_dir: Path, rng: random.Random) -> None:
    """Leave half a claim, an empty one, and a file that only looks like one."""
    _dead_elsewhere(run_dir, rng)
    file = run_dir / f"claim-{claim.attempts(run_dir)}.json"
    then = file.stat().st_mtime
    os.truncate(file, rng.choice([0, 20]))
    os.utime(file, (then, then))
    (run_dir / "claim-x.json").write_text("")


def _cleared(fault: Fault, name: str) -> Fault:
    """Return a fault whose stray file is the user's, and not for the run to delete."""

    def inject(bench: Harness, rng: random.Random) -> list[str]:
        return [line for line in fault.inject(bench, rng) if f"strays: {name}" not in line]

    return fault._replace(inject=inject)


def _wrong_clock(minutes: float) -> Callable[[], None]:
    """Return what sets this process's clock wrong, and with it the times that it gives to files."""

    def handicap() -> None:
        now, utime = time.time, os.utime
        time.time = lambda: now() + 60 * minutes

        def skewed(path: Any, times: Any = None, **rest: Any) -> None:
            utime(path, (time.time(), time.time()) if times is None and "ns" not in rest else times, **rest)

        setattr(os, "utime", skewed)  # noqa: B010

    return handicap


def live_elsewhere(bench: Harness, rng: random.Random) -> list[str]:
    """Start a run that a live process on another machine owns, with clocks ten minutes apart; then that one dies."""
    folder = bench.halfway()
    _owned(folder / "run", rng.uniform(0, STALE_SECONDS - 30))
    told = bench.refused(folder, _wrong_clock(10)) + bench.refused(folder, _wrong_clock(-10))
    _dead_elsewhere(folder / "run", rng)
    return told + bench.finish(folder, _wrong_clock(rng.choice([-10, 10])))


def live_in_another_container(bench: Harness, rng: random.Random) -> list[str]:
    """Start a run that another container of this machine, of this name, owns: its process ids are others' here."""
    folder = bench.halfway()
    host = "/".join([*claim._host().split("/")[:2], "pid:[4026530000]"])
    _owned(folder / "run", 20, host=host, pid=rng.choice([os.getpid(), 2**22 - 1]))
    told = bench.refused(folder)
    _owned(folder / "run", STALE_SECONDS + 1, host=host)
    return told + bench.finish(folder)


def _without_links() -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    setattr(os, "link", refuse)  # noqa: B010


def _without_locks() -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    fcntl.flock = refuse


def _idle_locks() -> None:
    fcntl.flock = lambda *_: None


FAULTS = [
    Fault("crash at a point of its file operations", crash, 60),
    Fault("three crashes in a row", crash_thrice, 10),
    Fault("crash while saving in mid-epoch", crash_in_saving, 15),
    damaged("torn last line of history.jsonl", _torn_line),
    damaged("stale claim of a dead machine", _dead_elsewhere),
    damaged("stale claim from before a reboot", _other_boot),
    damaged("claim of a process whose id is used again", _id_used_again),
    _cleared(damaged("torn or empty claim", _torn_claim), "claim-x.json"),
    Fault("live owner elsewhere, clocks 10 minutes apart", live_elsewhere, 5),
    Fault("live owner in another container", live_in_another_container, 5),
    handicapped("file system without hard links", _without_links),
    handicapped("file system that refuses locks", _without_locks),
    handicapped("file system whose locks do nothing", _idle_locks),
    Fault("disk that becomes full at a write", full_disk, 30),
    *(damaged(f"{name} cut short", _of(name, cut)) for name in CHECKPOINTS),
    *(damaged(f"{name} with a flipped bit", _of(name, flip)) for name in (*CHECKPOINTS, *TEXTS)),
    *(damaged_result(name) for name in RESULTS),
    damaged_cache("files of the cache cut short", cut, 10),
    damaged_cache("files of the cache with a flipped bit", flip, 10),
]
