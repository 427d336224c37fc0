"""Nothing is lost: killed anywhere, or on a broken file system, runs come to the results of undisturbed ones."""

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chaos.faults import FAULTS, Fault, crash_at
from chaos.harness import Harness
from chaos.random_kills import KillsResult, random_kills
from chaos.soak import growth, soak


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Harness:
    """One small run, undisturbed."""
    return Harness(tmp_path_factory.mktemp("bench"))


def test_a_crash_at_some_points_of_a_run_loses_nothing(bench: Harness) -> None:
    """One in the writing of some kinds of file: weights, history, predictions and summary are the same, bit for bit."""
    assert len(bench.points) > 300
    rng = random.Random(0)
    places: dict[str, list[int]] = {path: [] for _, path in bench.points}
    for number, (_, path) in enumerate(bench.points):
        places[path].append(number)
    written = [path for path in sorted(places) if path.startswith("run/.") or "history" in path]
    chosen = [rng.choice(places[path]) for path in rng.sample(written, 8)]
    lost = {bench.points[at]: told for at in chosen if (told := crash_at(bench, at))}
    assert not lost


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_a_crash_at_every_point_of_a_run_loses_nothing(bench: Harness, part: int) -> None:
    """Before each opening, sync, rename, link and deletion, and in the middle of writes."""
    lost = {bench.points[at]: told for at in range(part, len(bench.points), 8) if (told := crash_at(bench, at))}
    assert not lost


def _kinds() -> list[Any]:
    """Return all but the first, which has tests of its own; of damage to files, the quick tests do one of each way."""
    quick = ("last.pt cut", "history.jsonl with", "summary.json of a finished", "files of the cache with")
    files = [fault for fault in FAULTS if fault.name.endswith(("cut short", "with a flipped bit"))]
    slow = {fault.name for fault in files if not fault.name.startswith(quick)}
    assert len(slow) == len(files) - len(quick)
    return [
        pytest.param(fault, id=fault.name, marks=[pytest.mark.slow] if fault.name in slow else [])
        for fault in FAULTS[1:]
    ]


@pytest.mark.parametrize("fault", _kinds())
def test_a_fault_loses_nothing(bench: Harness, fault: Fault) -> None:
    """Each kind, once; `make chaos` does it more often."""
    assert fault.inject(bench, random.Random(fault.name)) == []


def test_the_command_forks_with_one_thread() -> None:
    """A child would wait for ever for threads of torch's that it does not have."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    code = "import chaos, torch; print(torch.get_num_threads())"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def assert_nothing_lost(told: KillsResult, blows: int) -> None:
    """Fail with what was lost in a storm."""
    assert told.blows.total() >= blows
    assert len(told.blows) > 4, told.blows
    assert told.lost == []


def test_agents_and_runs_killed_at_random_lose_nothing(tmp_path: Path) -> None:
    """Two `python agent.py` at once on a real sweep: each run is finished once, by one process at a time."""
    assert_nothing_lost(random_kills(tmp_path / "storm", blows=15, seeds=1, epochs=2, agents=2, pause=(0.1, 0.5)), 15)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_hundred_kills_lose_nothing(seed: int, tmp_path: Path) -> None:
    """Fifty for each of two seeds of the random moments."""
    assert_nothing_lost(random_kills(tmp_path / "storm", blows=50, seed=seed), 50)


@pytest.mark.slow
@pytest.mark.parametrize(("runs", "real"), [(300, False), (40, True)])
def test_an_agent_holds_no_more_after_many_runs(runs: int, real: bool, tmp_path: Path) -> None:
    """Memory, open files and threads of agent and fork server stay where they are after a third of the runs."""
    code, readings = soak(tmp_path / "soak", runs, real)
    assert code == 0
    assert readings[-1].done >= runs - runs // 30 - 1
    for who in ("agent", "fork server"):
        before, after = growth(readings, who)
        assert after.megabytes < before.megabytes * 1.05 + 3, (before, after)
        assert after.files <= before.files + 2, (before, after)
        assert after.threads <= before.threads, (before, after)
