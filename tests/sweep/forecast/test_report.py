"""What a sweep is expected to take is told before it begins, kept beside its runs, and compared with what it took."""

import dataclasses
import json
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from finetune.sweep import sweep_file
from finetune.sweep.forecast import report
from finetune.sweep.forecast.report import FORECAST, StrategyForecast, SweepForecast
from finetune.sweep.plan import PlannedRun, SweepPlan, make_plan
from finetune.sweep.progress import TimeLeftEstimator
from tests.support.agent_in_process import InProcess
from tests.support.agent_processes import CODE, Place, write_sweep
from tests.support.processes import wait_until

EXPECTED = SweepForecast(
    seconds=2460.0,
    agents=2,
    threads=1,
    device="cpu",
    run_seconds={"head-1": 60.0, "full-1": 1200.0, "full-2": 1200.0},
    unknown=0,
    strategies={"head": StrategyForecast(1, 60.0, 6.0), "full": StrategyForecast(2, 2400.0, 120.0)},
    cache_seconds=50.0,
    run_bytes=486_000_000,
    free_bytes=70_000_000_000,
    cache_bytes=1_500_000_000,
    cache_budget=20_000_000_000,
    refused_bytes=0,
    most=False,
)


def changed(**values: Any) -> SweepForecast:
    """Return EXPECTED with other values."""
    return dataclasses.replace(EXPECTED, **values)


def test_time_disk_and_calls_are_told_with_their_basis() -> None:
    """The dearest strategy first; calls as docs/wandb.md counts them."""
    assert report.lines(EXPECTED) == [
        "time: 41 min for 3 runs (probed here: 2 agents with 1 thread each)",
        "  full  2 runs, 20 min each, 40 min together, 98%",
        "  head  1 run, 60 s each, 60 s together, 2%",
        "  of this, 50 s to fill caches, once for all runs",
        "disk: 486 MB in run directories (70.0 GB free); caches 1.5 GB of 20.0 GB (FINETUNE_CACHE_GB)",
        "calls to W&B: none; run as a sweep on W&B, at most 239 in all",
    ]


def test_what_the_sweep_can_detect_is_said_before_it_starts() -> None:
    """By its runs per recipe and its test images; nothing where they are not known."""
    (line,) = (line for line in report.lines(changed(runs_per_recipe=3, test_images=341)) if "detect" in line)
    assert line.startswith("With 3 runs per recipe and 341 test images this sweep can detect differences of about 5.1 ")
    (line,) = (line for line in report.lines(changed(runs_per_recipe=1, test_images=341)) if "add seeds" in line)
    assert line.startswith("With 1 run per recipe, no difference")


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"most": True}, "time: at most 41 min for 3 runs"),
        ({"agents": 1, "threads": 2}, "(probed here: 1 agent with 2 threads)"),
        ({"device": "cuda"}, "(probed here: 2 agents on cuda)"),
        ({"unknown": 2}, "for 5 runs (probed here: 2 agents with 1 thread each; 2 runs are yet to be chosen"),
        ({"refused_bytes": 3_000_000_000}, "no room for 3.0 GB more in caches"),
        ({"free_bytes": 300_000_000}, "the disk will be full before the sweep is done, 1.7 GB are lacking: make room"),
        ({"free_bytes": 300_000_000, "caches_beside": False}, "before the sweep is done, 186 MB are lacking"),
    ],
)
def test_what_is_special_is_told(values: dict[str, Any], line: str) -> None:
    """Early stopping, devices, searches that learn, and disks that are too small."""
    assert line in "\n".join(report.lines(changed(**values)))
    assert line not in "\n".join(report.lines(EXPECTED))


@pytest.mark.parametrize(
    ("took", "wall", "comparison"),
    [
        ({"head-1": 90.0, "full-1": 1300.0, "full-2": 1300.0}, 2640.0, "forecast 41 min, took 44 min (+7%)"),
        (
            {"head-1": 45.0},
            2640.0,
            "forecast 60 s one after another for the 1 run that this agent finished, took 45 s (-25%)",
        ),
        ({"head-1": 60.0, "unforeseen": 1.0}, 99.0, "for the 1 run that this agent finished, took 60 s (+0%)"),
        ({"head-1": 60.0, "one": 1.0, "two": 2.0}, 99.0, "for the 1 run that this agent finished, took 60 s (+0%)"),
        ({}, 99.0, ""),
    ],
)
def test_what_it_took_is_compared_with_what_can_be_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], took: dict[str, float], wall: float, comparison: str
) -> None:
    """Wall times if this agent did it all, else run by run; nothing if it has finished none."""
    report.store(tmp_path, EXPECTED)
    kept = json.loads((tmp_path / FORECAST).read_text())
    assert kept["forecast"]["seconds"] == 2460.0
    assert kept["forecast"]["strategies"]["full"] == {"runs": 2, "seconds": 2400.0, "epoch_seconds": 120.0}
    assert kept["took"] is None
    report.compare(tmp_path, EXPECTED, wall, took)
    shown = capsys.readouterr().out
    assert comparison in shown
    assert bool(shown) == bool(comparison)
    kept = json.loads((tmp_path / FORECAST).read_text())
    assert kept["forecast"]["seconds"] == 2460.0
    assert kept["took"]["comparison"] == shown.strip()
    assert kept["took"]["whole"] == (took.keys() == EXPECTED.run_seconds.keys())
    assert (kept["took"]["wall_seconds"], kept["took"]["run_seconds"]) == (wall, took)


def test_runs_that_a_search_has_chosen_meanwhile_are_compared_as_a_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though they had no names when it began; not if some are missing."""
    report.compare(tmp_path, changed(run_seconds={"a": 60.0}, unknown=1), 99.0, {"a": 60.0})
    assert "for the 1 run that this agent finished, took 60 s (+0%)" in capsys.readouterr().out
    report.compare(tmp_path, changed(run_seconds={}, unknown=2), 1230.0, {"a": 1.0, "b": 2.0})
    assert "forecast 41 min, took 20 min (-50%)" in capsys.readouterr().out


def test_a_race_is_compared_as_a_whole(place: Place) -> None:
    """Its forecast reckons with as many runs, and guesses which; here the one with the second rate wins."""
    write_sweep(place.folder, seeds=2, lr={"values": [0.001, 0.003]})
    code, output = place.run("seeds.yaml", "--race")
    assert code == 0, output
    assert "asked for 3 runs" in output
    assert "\nforecast 30 s, took " in output
    assert kept(place)["took"]["whole"]


def test_a_folder_that_can_not_be_written_is_no_fault(tmp_path: Path) -> None:
    """The sweep goes on, or has an end, without the file."""
    report.store(tmp_path / "gone", EXPECTED)
    report.compare(tmp_path / "gone", EXPECTED, 1.0, {})


def stand_in(plan: SweepPlan, runs: Sequence[PlannedRun], unknown: int, agents: int) -> SweepForecast:
    """Expect ten seconds of every run."""
    print(f"asked for {len(runs)} runs, {unknown} unknown, {agents} agents, of {len(plan.runs)}")
    return changed(
        seconds=10.0 * len(runs),
        run_seconds={run.id: 10.0 for run in runs},
        strategies={"head": StrategyForecast(len(runs), 10.0 * len(runs), 5.0)},
    )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A folder with a sweep of four seeds, whose agents expect ten seconds of each."""
    write_sweep(tmp_path)
    return InProcess(tmp_path, CODE._replace(forecast=stand_in))


def kept(place: Place) -> dict[str, Any]:
    """Return what is kept beside the runs."""
    return dict(json.loads((place.folder / "runs/seeds" / FORECAST).read_text()))


def test_the_plan_tells_the_forecast_and_writes_nothing(place: Place) -> None:
    """After the table; of the runs that --count leaves."""
    code, output = place.run("seeds.yaml", "--plan", "--agents", "3")
    assert code == 0
    assert "4 runs: 4 to do\nasked for 4 runs, 0 unknown, 3 agents, of 4\ntime: 40 s for 4 runs" in output
    assert "asked for 2 runs" in place.run("seeds.yaml", "--plan", "--count", "2")[1]
    assert place.written() == ["seeds.yaml"]


def test_the_plan_of_a_sweep_that_the_disk_can_not_hold_ends_with_exit_code_1(place: Place) -> None:
    """So that a script can ask before it starts one; the sweep itself is begun, as room may be made meanwhile."""
    place.code = CODE._replace(forecast=lambda *_: changed(free_bytes=1))
    code, output = place.run("seeds.yaml", "--plan")
    assert (code, "the disk will be full before the sweep is done" in output) == (1, True)
    code, output = place.run("seeds.yaml")
    assert (code, "the disk will be full before the sweep is done" in output) == (0, True)


def test_a_sweep_is_compared_with_its_forecast(place: Place) -> None:
    """At its end, and in the file; finished runs are not forecast again."""
    code, output = place.run("seeds.yaml", "--count", "1")
    assert code == 0, output
    assert "asked for 1 runs" in output
    assert kept(place)["took"]["whole"]
    code, output = place.run("seeds.yaml", "--agents", "2")
    assert code == 0, output
    assert "asked for 3 runs, 0 unknown, 2 agents, of 4\ntime: 30 s" in output
    assert "\nforecast 30 s, took " in output
    took = kept(place)["took"]
    assert took["whole"]
    assert len(took["run_seconds"]) == 3
    assert 0 < took["seconds"] == took["wall_seconds"]
    assert "asked" not in place.run("seeds.yaml")[1]  # nothing is left


def test_of_a_sweep_that_was_stopped_the_finished_runs_are_compared(place: Place) -> None:
    """They alone."""
    place = Place(place.folder, place.code)
    agent = place.start("seeds.yaml", seconds=0.4)
    wait_until(lambda: {"finished", "unfinished"} <= set(place.states()))
    agent.signal(signal.SIGTERM)
    code, output = agent.wait()
    assert code == 143, output
    assert re.search(r"forecast (\d)0 s one after another for the \1 runs? that this agent finished, took ", output)
    assert not kept(place)["took"]["whole"]


def test_a_run_that_fails_leaves_the_others_to_be_compared(place: Place) -> None:
    """It took less, or more, than it would have."""
    code, output = place.run("seeds.yaml", fail="1")
    assert code == 1
    assert "forecast 30 s one after another for the 3 runs that this agent finished" in output


def test_the_time_left_begins_with_the_forecast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until a run of the strategy has told its own pace."""
    monkeypatch.chdir(tmp_path)
    write_sweep(tmp_path, seeds=2, epochs=4)
    todo = make_plan(sweep_file.load("seeds.yaml"), None, CODE.fingerprint_inputs)
    assert TimeLeftEstimator(todo).left(1)[1] is None
    pace = TimeLeftEstimator(todo, {"head": 5.0})
    assert pace.left(1)[1] == pytest.approx(8 * 5.0)
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    pace.started(todo.runs[0])
    pace.progressed(todo.runs[0], 0.0)
    assert pace.left(1)[1] == pytest.approx(8 * 5.0)
    now = 20.0
    pace.progressed(todo.runs[0], 2.0)
    assert pace.left(1)[1] == pytest.approx(6 * 10.0)
