"""Agents and their processes killed and signalled at random moments, until the sweep is done all the same."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from chaos.invariants import faults_of, overlaps, strays_in
from chaos.sandbox import Sandbox, draw, role, send, wait_until
from finetune.rundir import files

# What is hit, and by what; a stopped process goes on after a moment.
BLOWS = {
    "agent SIGKILL": ("agent", signal.SIGKILL),
    "run SIGKILL": ("run", signal.SIGKILL),
    "fork server SIGKILL": ("fork server", signal.SIGKILL),
    "agent SIGTERM": ("agent", signal.SIGTERM),
    "run SIGTERM": ("run", signal.SIGTERM),
    "run SIGSTOP, SIGCONT": ("run", signal.SIGSTOP),
}
CRASH = "crash at a point, by odds"
ODDS = 0.0006  # a run passes some 450 points
PATIENCE_SECONDS = 300.0  # for the sweep to end once nothing is hit any more


@dataclass
class KillsResult:
    """What has been done, and what is wrong after it.

    Attributes:
        runs: how many have been finished.
        starts: how often runs have been started for that.
    """

    blows: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    runs: int = 0
    starts: int = 0


def random_kills(
    folder: Path,
    blows: int,
    seed: int = 0,
    seeds: int = 2,
    epochs: int = 3,
    agents: int = 3,
    pause: tuple[float, float] = (0.2, 1.5),
    say: Callable[[str], None] = lambda _: None,
) -> KillsResult:
    """Run sweeps with several agents, hit them `blows` times in all, and compare them with an undisturbed one.

    Args:
        seeds, epochs: of each of the strategies; further sweeps follow until all blows have been dealt.
        agents: how many at once.
        pause: seconds between two blows, from and to.
    """
    rng, told = random.Random(seed), KillsResult()
    pictures = draw(folder / "pictures", {"train": 6, "test": 2})
    reference = _undisturbed(folder, pictures, seeds, epochs)
    expected = len(files.find_runs(reference))
    number = 0
    while told.blows.total() < blows:
        number += 1
        scene = Sandbox(folder / f"sweep-{number}", hooked=True)
        scene.write(pictures, seeds, epochs)
        try:
            _hit(scene, rng, told, (agents, blows, expected), pause)
            told.lost += _verdict(scene, reference)
        finally:
            scene.end()
        claims = [len(list(run.glob("claim-*.json"))) for run in files.find_runs(scene.runs)]
        told.runs, told.starts = told.runs + len(claims), told.starts + sum(claims)
        say(f"sweep {number}: {told.blows.total()} of {blows} blows, {len(told.lost)} lost")
    return told


def _undisturbed(folder: Path, pictures: Path, seeds: int, epochs: int) -> Path:
    scene = Sandbox(folder / "undisturbed")
    scene.write(pictures, seeds, epochs)
    try:
        assert scene.start().wait() == 0, (scene.folder / "agent-0.txt").read_text()
    finally:
        scene.end()
    return scene.runs


def _hit(
    scene: Sandbox, rng: random.Random, told: KillsResult, counts: tuple[int, int, int], pause: tuple[float, float]
) -> None:
    """Deal blows until the sweep is done, or all have been dealt; then let it come to its end.

    Args:
        counts: of agents, blows in all, and runs.
    """
    agents, blows, expected = counts
    kinds: list[str] = []
    for _ in range(agents):
        scene.start(ODDS, rng.randrange(10**6))
    while told.blows.total() + _crashes(scene) < blows and not scene.is_done(expected):
        time.sleep(rng.uniform(*pause))
        while len(scene.living()) < agents and not scene.is_done(expected):
            scene.start(ODDS, rng.randrange(10**6))
        kinds = kinds or rng.sample(list(BLOWS), len(BLOWS))
        if _deal(scene, rng, *BLOWS[kinds[-1]]):
            told.blows[kinds.pop()] += 1
        else:
            kinds.insert(0, kinds.pop())  # there is none of these now
    told.blows[CRASH] += _crashes(scene)
    end = time.monotonic() + PATIENCE_SECONDS
    while not scene.is_done(expected) and time.monotonic() < end:
        if not scene.living():
            scene.start()
        time.sleep(0.1)
    wait_until(lambda: not scene.living(), 240)


def _deal(scene: Sandbox, rng: random.Random, who: str, number: signal.Signals) -> bool:
    """Send a signal to one of these processes, if there is one."""
    there = []
    for process in scene.processes():
        try:
            if role(process) == who:
                there.append(process)
        except (psutil.Error, ProcessLookupError):
            continue
    if not there:
        return False
    chosen = rng.choice(there)
    hit = send(chosen, number)
    if number == signal.SIGSTOP:
        time.sleep(1)
        send(chosen, signal.SIGCONT)
    return hit


def _crashes(scene: Sandbox) -> int:
    return scene.log.read_text(errors="replace").count(" CRASH ") if scene.log.exists() else 0


def _verdict(scene: Sandbox, reference: Path) -> list[str]:
    """Return all that is wrong with a sweep that should be done."""
    told = []
    if not wait_until(lambda: not scene.processes(), 120):
        told.append(f"processes are left: {[process.cmdline() for process in scene.processes()]}")
    for stray in strays_in(scene.folder):  # which the next agent deletes after a while
        os.utime(scene.folder / stray, (0, 0))
    code = scene.start().wait()
    said = (scene.folder / f"agent-{len(scene.agents) - 1}.txt").read_text()
    if code != 0 or "Traceback" in said:
        told.append(f"the last agent ended with exit code {code}: {said[-500:]}")
    told += [f"an agent: {text[-800:]}" for text in _outputs(scene) if "Traceback" in text]
    told += [f"a temporary file is left: {stray}" for stray in strays_in(scene.runs)]
    names = {run.name for run in files.find_runs(scene.runs)}
    wanted = {run.name for run in files.find_runs(reference)}
    if names != wanted:
        told.append(f"{len(wanted - names)} of {len(wanted)} runs are missing, {len(names - wanted)} are there beyond")
    for name in sorted(names & wanted):
        told += faults_of(scene.runs / name, reference / name)
    return told + overlaps(scene.log)


def _outputs(scene: Sandbox) -> list[str]:
    return [path.read_text(errors="replace") for path in sorted(scene.folder.glob("agent-*.txt"))]
