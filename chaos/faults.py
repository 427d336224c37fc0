"""The faults that a single run is put through: a list to which a new one is added in a few lines.

A fault is a function of the harness and a random generator. It injects the fault once and returns the problems it
found: none, if the run comes to its end and to the very results of the undisturbed one.
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

from chaos.attempt import Disturbance
from chaos.harness import HISTORY_WRITE, Harness
from finetune.cache.entry_writer import ABOUT
from finetune.rundir import claim, keys
from finetune.system.atomic import STALE_SECONDS

CHECKPOINTS = (keys.LAST, keys.PREVIOUS, keys.BEST)
TEXTS = (keys.HISTORY, keys.CONFIG, keys.SPLITS, keys.STATE)
RESULTS = (keys.SUMMARY, keys.CONFIG, keys.HISTORY, keys.PREDICTIONS, keys.SPLITS, keys.BEST)

Damage = Callable[[Path, random.Random], None]  # of a file, or of the folder of a run
Inject = Callable[[Harness, random.Random], list[str]]


class Fault(NamedTuple):
    """A kind of fault."""

    name: str  # in the table
    inject: Inject  # does it once and returns the problems found
    times: int  # how often `make chaos` does it


def damage(name: str, harm: Damage, copy: Callable[[Harness], Path] = Harness.killed_halfway, times: int = 5) -> Fault:
    """Return a fault that harms a copy of a run's folder, which also has its cache, and starts the run again."""

    def inject(harness: Harness, rng: random.Random) -> list[str]:
        folder = copy(harness)
        harm(folder, rng)
        return harness.finish(folder)

    return Fault(name, inject, times)


def damage_file(name: str, harm: Damage) -> Damage:
    """Return a damage to one file of a run directory."""
    return lambda folder, rng: harm(folder / "run" / name, rng)


def damage_cache(harm: Damage) -> Damage:
    """Return a damage to all data of the cache."""

    def harm_all(folder: Path, rng: random.Random) -> None:
        for path in sorted((folder / "cache/store").glob("*/*")):
            if path.stat().st_size and path.name != ABOUT:  # without that file the data would not be read
                harm(path, rng)

    return harm_all


def killed_in_first_epochs(harness: Harness) -> Path:
    """Return a new folder with a run two of whose three epochs still need the cache."""
    return harness.killed_halfway(line=1)


def break_system(name: str, prepare: Callable[[], None], times: int = 3) -> Fault:
    """Return a fault of the file system that lasts from the run's start, with a crash on the way."""

    def inject(harness: Harness, rng: random.Random) -> list[str]:
        folder = harness.new_folder()
        harness.crash(folder, Disturbance(kill_at=rng.randrange(len(harness.points)), prepare=prepare))
        return harness.finish(folder, prepare)

    return Fault(name, inject, times)


def crash(harness: Harness, rng: random.Random) -> list[str]:
    """Kill the run at a random fail point, and start it again."""
    return crash_at(harness, rng.randrange(len(harness.points)))


def crash_at(harness: Harness, point: int) -> list[str]:
    """Kill the run at this fail point, and start it again."""
    folder = harness.new_folder()
    return harness.crash(folder, Disturbance(kill_at=point)) + harness.finish(folder)


def crash_thrice(harness: Harness, rng: random.Random) -> list[str]:
    """Kill the run at a random fail point, and the next two attempts soon after their start."""
    folder = harness.new_folder()
    problems = harness.crash(folder, Disturbance(kill_at=rng.randrange(len(harness.points))))
    for _ in range(2):
        harness.crash(folder, Disturbance(kill_at=rng.randrange(1, 60)))  # one with little left to do ends before
    return problems + harness.finish(folder)


def crash_in_saving(harness: Harness, rng: random.Random) -> list[str]:
    """Kill a run while it saves in mid-epoch, after it was asked to stop."""
    folder = harness.new_folder()
    harness.crash(folder, Disturbance(stop_at_check=rng.randint(4, 9)))  # saves and stops
    last = max(number for number, point in enumerate(harness.points) if point == HISTORY_WRITE)
    harness.crash(folder, Disturbance(kill_at=rng.randrange(20, last), stop_at_check=rng.randint(1, 3)))
    return harness.finish(folder)


def fill_disk(harness: Harness, rng: random.Random) -> list[str]:
    """Run on a disk that becomes full at a random point, then make room and start the run again."""
    folder = harness.new_folder()
    return harness.fill_disk(folder, rng.randrange(len(harness.points))) + harness.finish(folder)


def truncate(path: Path, rng: random.Random) -> None:
    """Cut a file short."""
    os.truncate(path, rng.randrange(path.stat().st_size))


def flip_bit(path: Path, rng: random.Random) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def tear_history(folder: Path, rng: random.Random) -> None:
    """Append the beginning of a line."""
    with (folder / "run" / keys.HISTORY).open("a") as file:
        file.write('\n{"epoch": 2, "train/loss": 0.123456'[: rng.randint(1, 36)])


def add_claim(run_dir: Path, silent_seconds: float, **fields: Any) -> Path:
    """Add the newest claim, of another owner whose last heartbeat was so long ago."""
    file = run_dir / f"claim-{claim.attempts(run_dir) + 1}.json"
    content = {"host": "elsewhere/1/pid:[1]", "pid": os.getpid(), "started": 1.0, "released": False, **fields}
    file.write_text(json.dumps(content))
    heartbeat = time.time() - silent_seconds
    os.utime(file, (heartbeat, heartbeat))
    return file


def leave_claim(silent_seconds: float, host: Callable[[], str] = lambda: "elsewhere/1/pid:[1]") -> Damage:
    """Return a damage that leaves the claim of a dead process of this host."""

    def harm(folder: Path, _: random.Random) -> None:
        add_claim(folder / "run", silent_seconds, host=host())

    return harm


def torn_claim(folder: Path, rng: random.Random) -> None:
    """Leave half a claim or an empty one, and a file that only looks like a claim."""
    file = add_claim(folder / "run", STALE_SECONDS + 10)
    heartbeat = file.stat().st_mtime
    os.truncate(file, rng.choice([0, 20]))
    os.utime(file, (heartbeat, heartbeat))
    (folder / "run" / "claim-x.json").write_text("")


def host_before_reboot() -> str:
    """Return the name of this host, as its claims had it before a reboot."""
    name, _, *namespace = claim._host().split("/")
    return "/".join([name, "another boot", *namespace])


def allow_stray(fault: Fault, name: str) -> Fault:
    """Return a fault whose stray file is the user's, so that the run must not delete it."""

    def inject(harness: Harness, rng: random.Random) -> list[str]:
        return [problem for problem in fault.inject(harness, rng) if f"strays: {name}" not in problem]

    return fault._replace(inject=inject)


def skew_clock(minutes: float) -> Callable[[], None]:
    """Return a function that sets the clock of this process wrong, and with it the times that it gives to files."""

    def prepare() -> None:
        now, utime = time.time, os.utime
        time.time = lambda: now() + 60 * minutes

        def skewed(path: Any, times: Any = None, **options: Any) -> None:
            utime(path, (time.time(), time.time()) if times is None and "ns" not in options else times, **options)

        setattr(os, "utime", skewed)  # noqa: B010

    return prepare


def live_elsewhere(harness: Harness, rng: random.Random) -> list[str]:
    """Start a run that a live process on another machine owns, with clocks ten minutes apart; then that one dies."""
    folder = harness.killed_halfway()
    add_claim(folder / "run", rng.uniform(0, STALE_SECONDS - 30))
    problems = harness.refuse(folder, skew_clock(10)) + harness.refuse(folder, skew_clock(-10))
    add_claim(folder / "run", STALE_SECONDS + 10)
    return problems + harness.finish(folder, skew_clock(rng.choice([-10, 10])))


def live_in_another_container(harness: Harness, rng: random.Random) -> list[str]:
    """Start a run that a container of the same host name owns, whose process ids mean other processes here."""
    folder = harness.killed_halfway()
    host = "/".join([*claim._host().split("/")[:2], "pid:[4026530000]"])
    add_claim(folder / "run", 20, host=host, pid=rng.choice([os.getpid(), 2**22 - 1]))
    problems = harness.refuse(folder)
    add_claim(folder / "run", STALE_SECONDS + 1, host=host)
    return problems + harness.finish(folder)


def without_hard_links() -> None:
    """Have this process's file system refuse hard links."""

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    setattr(os, "link", refuse)  # noqa: B010


def without_locks() -> None:
    """Have this process's file system refuse locks."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    fcntl.flock = refuse


def with_idle_locks() -> None:
    """Have locks of this process's file system succeed and do nothing."""
    fcntl.flock = lambda *_: None


FAULTS = [
    Fault("crash at a point of its file operations", crash, 60),
    Fault("three crashes in a row", crash_thrice, 10),
    Fault("crash while saving in mid-epoch", crash_in_saving, 15),
    damage("torn last line of history.jsonl", tear_history),
    damage("stale claim of a dead machine", leave_claim(STALE_SECONDS + 10)),
    damage("stale claim from before a reboot", leave_claim(STALE_SECONDS + 10, host_before_reboot)),
    damage("claim of a process whose id is used again", leave_claim(0, claim._host)),
    allow_stray(damage("torn or empty claim", torn_claim), "claim-x.json"),
    Fault("live owner elsewhere, clocks 10 minutes apart", live_elsewhere, 5),
    Fault("live owner in another container", live_in_another_container, 5),
    break_system("file system without hard links", without_hard_links),
    break_system("file system that refuses locks", without_locks),
    break_system("file system whose locks do nothing", with_idle_locks),
    Fault("disk that becomes full at a write", fill_disk, 30),
    *(damage(f"{name} cut short", damage_file(name, truncate)) for name in CHECKPOINTS),
    *(damage(f"{name} with a flipped bit", damage_file(name, flip_bit)) for name in (*CHECKPOINTS, *TEXTS)),
    *(
        damage(f"{name} of a finished run with a flipped bit", damage_file(name, flip_bit), Harness.finished)
        for name in RESULTS
    ),
    damage("files of the cache cut short", damage_cache(truncate), killed_in_first_epochs, 10),
    damage("files of the cache with a flipped bit", damage_cache(flip_bit), killed_in_first_epochs, 10),
]
