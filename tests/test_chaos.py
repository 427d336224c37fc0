"""Nothing is lost: killed anywhere, or on a broken file system, runs come to the results of undisturbed ones.

The quick tests inject each way of damage to a single run once; the slow ones crash it at every fail point, and kill
agents and runs of complete sweeps. `make chaos` does more of all.
"""

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from chaos.faults import FAULTS, Fault, crash_at
from chaos.harness import Harness
from chaos.random_kills import KillPlan, random_kills
from chaos.soak import ROLES, growth, soak

# Of the faults that damage files, the quick tests inject one of each way.
QUICK_DAMAGE = ("last.pt cut", "history.jsonl with", "summary.json of a finished", "files of the cache with")


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Harness:
    """One small run, undisturbed."""
    return Harness(tmp_path_factory.mktemp("harness"))


def lost_in_crashes(harness: Harness, points: list[int]) -> dict[Any, list[str]]:
    """Return fail point -> what is lost by a crash there, where something is."""
    return {harness.points[at]: problems for at in points if (problems := crash_at(harness, at))}


def test_a_crash_at_some_points_of_a_run_loses_nothing(harness: Harness) -> None:
    """In the writing of several kinds of file: weights, history, predictions and summary are the same, bit for bit."""
    assert len(harness.points) > 300
    rng = random.Random(0)
    by_path: dict[str, list[int]] = {}
    for number, (_, path) in enumerate(harness.points):
        by_path.setdefault(path, []).append(number)
    written = [path for path in sorted(by_path) if path.startswith("run/.") or "history" in path]
    assert lost_in_crashes(harness, [rng.choice(by_path[path]) for path in rng.sample(written, 4)]) == {}


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_a_crash_at_every_point_of_a_run_loses_nothing(harness: Harness, part: int) -> None:
    """Before each opening, sync, rename, link and deletion, and in the middle of writes."""
    assert lost_in_crashes(harness, list(range(part, len(harness.points), 8))) == {}


def _faults() -> list[Any]:
    """Return all faults but the first, which has tests of its own."""
    damage = [fault for fault in FAULTS if fault.name.endswith(("cut short", "with a flipped bit"))]
    slow = [fault for fault in damage if not fault.name.startswith(QUICK_DAMAGE)]
    assert len(slow) == len(damage) - len(QUICK_DAMAGE)
    return [pytest.param(one, id=one.name, marks=[pytest.mark.slow] * (one in slow)) for one in FAULTS[1:]]


@pytest.mark.parametrize("fault", _faults())
def test_a_fault_loses_nothing(harness: Harness, fault: Fault) -> None:
    """Each kind, once; `make chaos` does it more often."""
    assert fault.inject(harness, random.Random(fault.name)) == []


def test_a_run_is_forked_from_a_process_with_one_thread(harness: Harness) -> None:
    """The fork would wait for ever for torch's other threads, which it does not have."""
    torch.set_num_threads(2)  # starts none yet
    assert harness.finish(harness.finished()) == []
    assert torch.get_num_threads() == 1


def assert_nothing_lost(folder: Path, plan: KillPlan, kinds: int) -> None:
    """Fail with what was lost in random kills of so many different kinds."""
    result = random_kills(folder, plan)
    assert result.kills.total() >= plan.kills
    assert len(+result.kills) >= kinds, result.kills
    assert result.lost == []


@pytest.mark.slow
def test_agents_and_runs_killed_at_random_lose_nothing(tmp_path: Path) -> None:
    """Two `python agent.py` at once on a real sweep: each run is finished once, by one process at a time."""
    assert_nothing_lost(tmp_path, KillPlan(kills=15, seeds=1, epochs=2, agents=2, pause=(0.1, 0.5)), kinds=5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_hundred_kills_lose_nothing(seed: int, tmp_path: Path) -> None:
    """Fifty for each of two seeds of the random moments, by three agents at once."""
    assert_nothing_lost(tmp_path, KillPlan(kills=50, seed=seed), kinds=5)


@pytest.mark.slow
@pytest.mark.parametrize(("runs", "real"), [(300, False), (40, True)])
def test_an_agent_holds_no_more_after_many_runs(runs: int, real: bool, tmp_path: Path) -> None:
    """Memory, open files and threads of agent and fork server stay where they are after a third of the runs."""
    code, readings = soak(tmp_path / "soak", runs, real)
    assert code == 0
    assert readings[-1].finished >= runs - runs // 30 - 1
    for role in ROLES:
        before, after = growth(readings, role)
        assert after.megabytes < before.megabytes * 1.05 + 3, (before, after)
        assert after.files <= before.files + 2, (before, after)
        assert after.threads <= before.threads, (before, after)
