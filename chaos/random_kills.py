"""Agents and their processes killed and signalled at random moments, until the sweep is finished all the same."""

import logging
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from chaos.invariants import overlapping_writers, temporary_files, violations
from chaos.sandbox import Sandbox, draw_images, send, wait_until
from finetune.rundir import files

logger = logging.getLogger(__name__)

# Which process gets which signal; a stopped process is continued after a second.
SIGNALS = {
    "agent SIGKILL": ("agent", signal.SIGKILL),
    "run SIGKILL": ("run", signal.SIGKILL),
    "fork server SIGKILL": ("fork server", signal.SIGKILL),
    "agent SIGTERM": ("agent", signal.SIGTERM),
    "run SIGTERM": ("run", signal.SIGTERM),
    "run SIGSTOP, SIGCONT": ("run", signal.SIGSTOP),
}
CRASH = "crash at a random fail point"
CRASH_ODDS = 0.0006  # per fail point; a run passes some 450 of them
FINISH_SECONDS = 300.0  # for the sweep to finish after the last kill


@dataclass(frozen=True)
class KillPlan:
    """The kills of a sweep's processes."""

    kills: int  # signals and crashes in all; further sweeps follow until all have been done
    seed: int = 0  # of all random choices
    seeds: int = 2  # of each of a sweep's four strategies
    epochs: int = 3  # of a run
    agents: int = 3  # how many at once
    pause: tuple[float, float] = (0.2, 1.5)  # least and most seconds between two signals


@dataclass
class KillsResult:
    """The kills that were done, and the losses."""

    kills: Counter[str] = field(default_factory=Counter)  # how often each kind of kill was done
    lost: list[str] = field(default_factory=list)  # everything wrong with the results
    runs: int = 0  # number of finished runs
    starts: int = 0  # how often runs were started until they were finished


def random_kills(folder: Path, plan: KillPlan) -> KillsResult:
    """Run sweeps with several agents, kill their processes, and compare the runs with those of an undisturbed sweep."""
    rng, result = random.Random(plan.seed), KillsResult()
    images = draw_images(folder / "pictures", {"train": 6, "test": 2})
    reference = _run_undisturbed(Sandbox(folder / "undisturbed"), images, plan)
    expected = len(files.find_runs(reference))
    number = 0
    while result.kills.total() < plan.kills:
        number += 1
        sandbox = Sandbox(folder / f"sweep-{number}", has_failpoints=True)
        sandbox.write_small_sweep(images, plan.seeds, plan.epochs)
        try:
            _kill_until_finished(sandbox, plan, expected, rng, result)
            result.lost += _problems(sandbox, reference)
        finally:
            sandbox.kill_all()
        claims = [len(list(run.glob("claim-*.json"))) for run in files.find_runs(sandbox.runs)]
        result.runs, result.starts = result.runs + len(claims), result.starts + sum(claims)
        logger.info(f"sweep {number}: {result.kills.total()} of {plan.kills} kills, {len(result.lost)} lost")
    return result


def _run_undisturbed(sandbox: Sandbox, images: Path, plan: KillPlan) -> Path:
    """Run the sweep with one agent, and return the folder of its runs."""
    sandbox.write_small_sweep(images, plan.seeds, plan.epochs)
    try:
        assert sandbox.start().wait() == 0, sandbox.output_of(0).read_text()
    finally:
        sandbox.kill_all()
    return sandbox.runs


def _kill_until_finished(
    sandbox: Sandbox, plan: KillPlan, expected: int, rng: random.Random, result: KillsResult
) -> None:
    """Kill processes until `expected` runs are finished or all kills are done; then let the sweep finish."""
    kinds: list[str] = []  # still to do, before all are shuffled again
    while result.kills.total() + _crashes(sandbox) < plan.kills and sandbox.finished_runs() < expected:
        while len(sandbox.live_agents()) < plan.agents and sandbox.finished_runs() < expected:
            sandbox.start(CRASH_ODDS, rng.randrange(10**6))
        time.sleep(rng.uniform(*plan.pause))
        kinds = kinds or rng.sample(list(SIGNALS), len(SIGNALS))
        if _signal_one(sandbox, rng, *SIGNALS[kinds[-1]]):
            result.kills[kinds.pop()] += 1
        else:
            kinds.insert(0, kinds.pop())  # there is no such process now
    result.kills[CRASH] += _crashes(sandbox)
    end = time.monotonic() + FINISH_SECONDS
    while sandbox.finished_runs() < expected and time.monotonic() < end:
        if not sandbox.live_agents():
            sandbox.start()
        time.sleep(0.1)
    wait_until(lambda: not sandbox.live_agents(), 240)


def _signal_one(sandbox: Sandbox, rng: random.Random, role: str, number: signal.Signals) -> bool:
    """Send a signal to a random process of this role; return False if there is none."""
    processes = sandbox.processes(role)
    if not processes:
        return False
    process = rng.choice(processes)
    was_sent = send(process, number)
    if number == signal.SIGSTOP:
        time.sleep(1)
        send(process, signal.SIGCONT)
    return was_sent


def _crashes(sandbox: Sandbox) -> int:
    return sandbox.log.read_text(errors="replace").count(" CRASH ") if sandbox.log.exists() else 0


def _problems(sandbox: Sandbox, reference: Path) -> list[str]:
    """Return everything wrong with a sweep that should be finished."""
    problems = []
    if not wait_until(lambda: not sandbox.processes(), 120):
        problems.append(f"processes are left: {[process.cmdline() for process in sandbox.processes()]}")
    for path in temporary_files(sandbox.folder):  # the next agent deletes old ones
        os.utime(sandbox.folder / path, (0, 0))
    code = sandbox.start().wait()
    outputs = [sandbox.output_of(number).read_text(errors="replace") for number in range(len(sandbox.agents))]
    if code != 0:
        problems.append(f"the last agent ended with exit code {code}: {outputs[-1][-500:]}")
    problems += [f"an agent: {output[-800:]}" for output in outputs if "Traceback" in output]
    problems += [f"a temporary file is left: {path}" for path in temporary_files(sandbox.runs)]
    names, expected = ({run.name for run in files.find_runs(runs)} for runs in (sandbox.runs, reference))
    if names != expected:
        missing, surplus = len(expected - names), len(names - expected)
        problems.append(f"{missing} of {len(expected)} runs are missing, {surplus} are surplus")
    for name in sorted(names & expected):
        problems += violations(sandbox.runs / name, reference / name)
    return problems + overlapping_writers(sandbox.log)
