"""Agents side by side, killed, stopped and started again, in real processes with a stand-in for training."""

import os
import signal
from pathlib import Path

import pytest
import yaml

from finetune.rundir import files, keys
from finetune.rundir.failures import CAUSES
from finetune.sweep import devices, search
from finetune.sweep.agents import local_agent
from finetune.system import documents
from tests.support.agent_processes import Place, write_hyperband, write_sweep
from tests.support.failing_disk import failing_disk
from tests.support.processes import wait_until


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A folder with a sweep of four seeds."""
    write_sweep(tmp_path)
    return Place(tmp_path)


def test_a_sweep_is_run_and_a_rerun_starts_nothing(place: Place) -> None:
    """All runs are finished with exit code 0; the same command again does nothing, and says what comes next."""
    code, output = place.run("seeds.yaml", "--agents", "2")
    assert code == 0, output
    assert place.states() == ["finished"] * 4
    assert "[4/4]" in output
    assert "val 80.0% test 80.0%" in output
    code, output = place.run("seeds.yaml")
    assert code == 0
    assert place.starts() == [1] * 4
    assert "make analysis SWEEP=runs/seeds" in output
    place.assert_empty()


def test_two_agents_side_by_side_run_everything_exactly_once(place: Place) -> None:
    """Two agents started at the same instant share a sweep without a duplicate."""
    write_sweep(place.folder, seeds=10)
    agents = [place.start("seeds.yaml", "--agents", "2") for _ in range(2)]
    ended = [agent.wait() for agent in agents]
    assert [code for code, _ in ended] == [0, 0], ended
    assert place.states() == ["finished"] * 10
    assert place.starts() == [1] * 10


def test_runs_know_the_runs_that_are_left_to_do(place: Place) -> None:
    """Each one itself and those not finished, running ones too; failed ones only if they are to be tried again."""
    assert place.run("seeds.yaml", "--set", "seed=[0,1,2]", fail="0")[0] == 1
    assert _peers(place) == {0: {0, 1, 2}, 1: {1, 2}, 2: {2}}
    assert place.run("seeds.yaml", "--agents", "2")[0] == 1  # the failed one is left alone
    assert _peers(place)[3] == {3}
    assert place.run("seeds.yaml", "--retry-failed", "--agents", "2", "--set", "seed=[0,4,5]", slow="0,4")[0] == 0
    assert _peers(place)[0] == {0, 4, 5}
    assert _peers(place)[4] == {0, 4, 5}


def test_runs_of_other_agents_that_go_on_are_peers_too(place: Place) -> None:
    """They may use what this one caches."""
    other = place.start("seeds.yaml", "--count", "1", hang="0")
    wait_until(lambda: any("hangs" in run.joinpath(keys.LOG).read_text() for run in place.runs()))
    assert place.run("seeds.yaml", "--count", "1")[0] == 0
    other.signal(signal.SIGKILL)
    other.wait()
    place.assert_empty()
    assert _peers(place) == {0: {0, 1, 2, 3}, 1: {0, 1, 2, 3}}


def _peers(place: Place) -> dict[int, set[int]]:
    """Return seed of a run -> the seeds of its peers when it was started last."""
    told = {files.read_config(run)["seed"]: documents.read_json(run / "peers.json") or {} for run in place.runs()}
    return {seed: set(peers["seeds"]) for seed, peers in told.items()}


def test_a_killed_agent_leaves_no_process_and_a_rerun_does_only_what_is_missing(place: Place) -> None:
    """SIGKILL to the agent ends all its processes; the next one resumes the cut run and keeps the finished ones."""
    write_sweep(place.folder, epochs=3)
    agent = place.start("seeds.yaml", seconds=0.4)
    wait_until(lambda: place.states() == ["finished", "unfinished"] and len(place.epochs()) > 3)
    agent.signal(signal.SIGKILL)
    agent.wait()
    place.assert_empty()
    assert place.states() == ["finished", "unfinished"]
    finished = {run: (run / keys.SUMMARY).stat().st_mtime_ns for run in place.runs() if (run / "summary.json").exists()}
    code, output = place.run("seeds.yaml")
    assert code == 0, output
    assert place.states() == ["finished"] * 4
    assert sorted(place.starts()) == [1, 1, 1, 2]
    assert all((run / keys.SUMMARY).stat().st_mtime_ns == time for run, time in finished.items())
    assert place.epochs() == [1, 2, 3] * 4


def test_a_failed_run_is_named_and_retried_only_when_asked(place: Place) -> None:
    """Exit code 1, reason and log file in the output; the others finish; --retry-failed mends it."""
    code, output = place.run("seeds.yaml", fail="1")
    assert code == 1
    assert place.states() == ["failed", "finished", "finished", "finished"]
    failed = next(run for run in place.runs() if files.status(run)[0] == "failed")
    assert f"{failed.name} seed 1 failed: ValueError: told to fail; log: runs/seeds/{failed.name}/log.txt" in output
    assert "Traceback" in (failed / keys.LOG).read_text()
    code, output = place.run("runs/seeds")
    assert code == 1
    assert f"failed before, not started again: {failed.name}: ValueError: told to fail" in output
    assert "python agent.py runs/seeds --retry-failed" in output
    assert sum(place.starts()) == 4
    code, output = place.run("--retry-failed", "runs/seeds")
    assert code == 0, output
    assert place.states() == ["finished"] * 4
    assert sum(place.starts()) == 5


def test_a_run_killed_by_a_signal_is_noted_and_picked_up_by_the_next_agent(place: Place) -> None:
    """An out-of-memory kill ends one run, not the agent; it is not started again at once, but the next time."""
    code, output = place.run("seeds.yaml", crash="2")
    assert code == 1
    assert "killed by signal 9 (SIGKILL); out of memory is the usual cause" in output
    assert f"): {CAUSES['memory']}" in output
    assert place.states() == ["finished", "finished", "finished", "killed"]
    code, output = place.run("seeds.yaml")
    assert code == 0, output
    assert place.states() == ["finished"] * 4


def test_a_run_that_refuses_its_input_is_a_failed_run(place: Place) -> None:
    """A fault that only the run itself finds is noted by the agent."""
    code, output = place.run("seeds.yaml", "--set", "seed=[0,1]", refuse="1")
    assert code == 1
    assert "failed: exit code 2: DataError: no images here" in output
    assert f"): {CAUSES['data']}" in output


def test_an_agent_gives_up_after_failures_in_a_row_and_says_what_they_have_in_common(place: Place) -> None:
    """By cause, with what to do, and the first one's log; runs that go on end; the same command goes on."""
    write_sweep(place.folder, seeds=9)
    code, output = place.run("seeds.yaml", "--max-failures", "3", fail="0,2,4", crash="3")
    assert code == 1
    assert "3 runs failed in a row: no more are started" in output
    assert "gave up after 3 failures in a row: 1 finished, 4 failed, 5 left" in output  # the crashed one is left, too
    assert sum(place.starts()) == 5
    logs = {
        files.read_config(run)["seed"]: f"{run.name}: ValueError: told to fail; log: runs/seeds/{run.name}/log.txt"
        for run in place.runs()
    }
    assert f"the first in a row: {logs[2]}" in output
    assert (
        f"  code, 3 runs ({', '.join(logs[seed].partition(':')[0] for seed in (0, 2, 4))}): {CAUSES['code']}" in output
    )
    assert f"  memory, 1 run ({logs[3].partition(':')[0]}): {CAUSES['memory']}" in output
    assert "were not started" in output
    assert "go on with: python agent.py runs/seeds" in output
    code, output = place.run("seeds.yaml", "--retry-failed")
    assert code == 0, output
    assert place.states() == ["finished"] * 9


@pytest.mark.parametrize(
    ("budget", "endings", "starts"),
    [
        ("2", {"fail": "0,2,4", "diverge": "3"}, 5),  # a run that diverged is a result: 2 and 4 are in a row
        ("1", {"diverge": "0,1,2,3,4,5"}, 6),
        ("2", {"refuse": "1,2"}, 3),
        ("0", {"fail": "0,1,2,3,4,5"}, 6),
        ("6", {"fail": "0,1,2,3,4,5"}, 6),  # nothing is left to give up
    ],
)
def test_what_counts_as_a_failure_in_a_row(place: Place, budget: str, endings: dict[str, str], starts: int) -> None:
    """Runs that are finished begin a new row; 0 is no limit."""
    write_sweep(place.folder, seeds=6)
    code, output = place.run("seeds.yaml", "--max-failures", budget, **endings)
    assert code == 1
    assert output.count(" ...\n") == starts
    assert ("gave up" in output) == (starts < 6)


def test_runs_side_by_side_end_when_the_agent_gives_up(place: Place) -> None:
    """One that goes on is finished, and changes nothing about giving up."""
    write_sweep(place.folder, seeds=6)
    code, output = place.run("seeds.yaml", "--agents", "2", "--max-failures", "2", slow="0", fail="1,2")
    assert code == 1
    assert place.states() == ["failed", "failed", "finished"]
    assert "gave up after 2 failures in a row: 1 finished, 2 failed, 3 left" in output


def test_a_run_that_the_user_ends_is_no_failure_in_a_row(place: Place) -> None:
    """Ended with `kill`, it is left for the next time; the others go on."""
    write_sweep(place.folder, seeds=2)
    agent = place.start("seeds.yaml", "--max-failures", "1", seconds=0.5)
    wait_until(lambda: len(place.epochs()) == 1)
    os.kill(int((place.runs()[0] / "starts.txt").read_text()), signal.SIGTERM)
    code, output = agent.wait()
    assert code == 1
    assert "killed: stopped after epoch 2" in output
    assert "gave up" not in output
    assert place.states() == ["finished", "killed"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_first_signal_lets_runs_end_and_leaves_no_process(place: Place, number: int, code: int) -> None:
    """The runs are told to stop, release their claims, and can be resumed at once."""
    write_sweep(place.folder, epochs=4)
    agent = place.start("seeds.yaml", "--agents", "2", seconds=0.3)
    wait_until(lambda: [len(files.read_history(run)[0]) > 0 for run in place.runs()] == [True, True])
    os.killpg(agent.pid, number)  # to the whole group, as a terminal or a batch system does
    ended, output = agent.wait()
    assert ended == code, output
    assert "go on with: python agent.py runs/seeds" in output
    place.assert_empty()
    assert set(place.states()) == {"killed"}
    assert all(files.status(run)[1].startswith("stopped after epoch") for run in place.runs())
    if number == signal.SIGTERM:
        assert place.run("seeds.yaml")[0] == 0
        assert place.states() == ["finished"] * 4


def test_the_second_signal_ends_runs_that_do_not_stop(place: Place) -> None:
    """A run that ignores the first signal is killed by the second."""
    agent = place.start("seeds.yaml", hang="0")
    wait_until(lambda: len(place.starts()) == 1)
    wait_until(lambda: "hangs" in "".join(run.joinpath(keys.LOG).read_text() for run in place.runs()))
    agent.signal(signal.SIGTERM)
    with pytest.raises(AssertionError, match="in time"):
        agent.wait(seconds=1)
    agent.signal(signal.SIGTERM)
    assert agent.wait()[0] == 143
    place.assert_empty()


def test_count_limits_the_runs_that_are_started(place: Place) -> None:
    """--count 1 starts one run, the next call another one."""
    assert place.run("seeds.yaml", "--count", "1")[0] == 0
    assert place.states() == ["finished"]
    code, output = place.run("--count", "1")  # the newest unfinished sweep
    assert code == 0
    assert place.states() == ["finished"] * 2
    assert "2 finished, 0 failed, 2 left" in output


def test_runs_on_other_data_are_kept_apart(place: Place) -> None:
    """A sweep's folder never mixes data; the message says how to go on, and nothing is written."""
    assert place.run("seeds.yaml", "--count", "1")[0] == 0
    before = (place.folder / "runs/seeds/sweep.yaml").read_text()
    code, output = place.run("seeds.yaml", "--set", "data=other")
    assert code == 2
    assert "--name other keeps them apart" in output
    assert (place.folder / "runs/seeds/sweep.yaml").read_text() == before
    assert place.run("seeds.yaml", "--set", "data=other", "--name", "other", "--plan")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize(("unfreeze", "first", "last"), [([[0, 0.5]], 2, 7), ([[0, 0.5], [8, 1]], 9, 15)])
def test_hyperband_stops_runs_that_lag_behind_but_never_before_the_last_unfreeze(
    place: Place, unfreeze: list[list[float]], first: int, last: int
) -> None:
    """A bad rate is stopped early; the same rate in a schedule that unfreezes later goes on until it has."""
    write_hyperband(place.folder, 2, epochs=16, strategy="gradual", unfreeze=unfreeze)
    code, output = place.run("seeds.yaml", seconds=0.25)
    assert code == 0, output
    epochs: dict[float, list[int]] = {}
    for run in place.runs():
        summary = documents.read_json(run / keys.SUMMARY) or {}
        epochs.setdefault(files.read_config(run)["lr"], []).append(summary["epochs"])
    assert epochs[0.003] == epochs[0.0031] == [16]
    assert all(first <= trained <= last for trained in epochs[0.01]), epochs


def test_bayesian_search_goes_on_where_it_was(place: Place) -> None:
    """Trials are noted for all agents; a rerun adds none beyond run_cap."""
    spec = {
        "method": "bayes",
        "run_cap": 4,
        "metric": {"name": "best/val_accuracy", "goal": "maximize"},
        "parameters": {"data": {"value": "demo"}, "epochs": {"value": 1}, "lr": {"min": 0.0005, "max": 0.01}},
    }
    (place.folder / "seeds.yaml").write_text(yaml.safe_dump(spec))
    search.propose_point(spec, "warm", 0, [])  # imports what agents would each take seconds for
    code, output = place.run("seeds.yaml", "--count", "2")
    assert code == 0, output
    assert place.states() == ["finished"] * 2
    assert "2 left" in output
    assert [documents.read_json(run / "peers.json") for run in place.runs()] == [{"seeds": None}] * 2  # more may come
    code, output = place.run("seeds.yaml", "--agents", "2")
    assert code == 0, output
    assert place.states() == ["finished"] * 4
    assert len({files.read_config(run)["lr"] for run in place.runs()}) == 4
    assert place.run("--plan", "runs/seeds")[0] == 0


BAYES = {
    "method": "bayes",
    "run_cap": 2,
    "metric": {"name": "best/val_accuracy", "goal": "maximize"},
    "parameters": {
        "data": {"value": "demo"},
        "strategy": {"value": "head"},
        "epochs": {"min": 3, "max": 6},
        "warmup_epochs": {"min": 0.0, "max": 3.05},
    },
}


def test_a_proposal_that_is_no_valid_config_does_not_end_the_agent(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one of the points of the search; the run that goes on beside it is finished."""
    (place.folder / "seeds.yaml").write_text(yaml.safe_dump(BAYES))
    warmups = [1.0, 3.02]  # more than all the epochs

    def propose(spec: object, name: str, number: int, observed: object) -> dict[str, object]:  # noqa: ARG001
        return {"data": "demo", "strategy": "head", "epochs": 3, "warmup_epochs": warmups[number]}

    monkeypatch.setattr(search, "propose_point", propose)
    code, output = place.run("seeds.yaml", "--agents", "2")
    assert (code, place.states()) == (0, ["finished"]), output
    assert output.count("the search proposed a point that is no valid config: ") == 1
    assert "Traceback" not in output


def test_an_agent_waits_for_a_trial_that_another_one_is_writing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without proposing points meanwhile, which takes a second each; it then runs what the other one has written."""
    (place.folder / "seeds.yaml").write_text(yaml.safe_dump({**BAYES, "run_cap": 1}))
    trial = place.folder / "runs/seeds/trials/00000.json"
    trial.parent.mkdir(parents=True)
    trial.touch()
    looks = place.folder / "output-looks"
    monkeypatch.setattr(search, "propose_point", lambda *_: pytest.fail("proposed a point"))
    true = local_agent.is_being_written

    def look(folder: Path, number: int) -> bool:
        with looks.open("a") as file:
            file.write(".")
        return true(folder, number)

    monkeypatch.setattr(local_agent, "is_being_written", look)
    agent = place.start("seeds.yaml")
    wait_until(lambda: looks.exists() and looks.stat().st_size >= 2)
    trial.write_text('{"data": "demo", "strategy": "head", "epochs": 3, "warmup_epochs": 0.0}')
    code, output = agent.wait()
    assert (code, place.states()) == (0, ["finished"]), output


@pytest.mark.parametrize(
    ("ending", "cause", "said"),
    [
        ("greedy", "memory", "MemoryError"),
        ("crash", "memory", "killed by signal 9"),
        ("full", "disk", "No space left on device"),
    ],
)
def test_want_of_memory_or_disk_ends_one_run_and_not_the_sweep(
    place: Place, ending: str, cause: str, said: str
) -> None:
    """Whether the process is told (here by its own limit) or killed: the next runs start, and the cause is said."""
    code, output = place.run("seeds.yaml", **{ending: "0"})
    assert code == 1, output
    assert "Traceback" not in output
    assert f"  {cause}, 1 run (" in output
    (failed,) = [run for run in place.runs() if files.status(run)[0] != "finished"]
    state = documents.read_json(failed / keys.STATE) or {}
    assert state["cause"] == cause
    assert said in state["reason"]
    assert len(place.states()) == 4


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="Linux alone has such a score")
def test_where_memory_runs_out_the_kernel_takes_a_run_and_not_the_agent(place: Place) -> None:
    """A run's score is higher than that of the agent that started it."""
    assert place.run("seeds.yaml", "--count", "1")[0] == 0
    own = int(Path("/proc/self/oom_score_adj").read_text())
    (run,) = place.runs()
    assert int((run / "oom_score.txt").read_text()) == max(own, devices.OOM_SCORE)


@pytest.mark.parametrize("number", [0, 2, 6, 9])
def test_what_can_not_be_noted_beside_the_runs_ends_the_agent_with_a_message(place: Place, number: int) -> None:
    """One that names the file, without a traceback; the same command does it all once there is room."""
    with failing_disk(place.folder / "runs") as disk:
        disk.arm(number)
        code, output = place.run("seeds.yaml")
    assert code == 1, output
    assert "Traceback" not in output
    assert output.count("WriteError: ") == 1
    assert "runs/seeds" in output
    assert "make room there" in output
    assert place.run("seeds.yaml")[0] == 0
    assert place.states() == ["finished"] * 4
    assert not list((place.folder / "runs").rglob(".*"))


def test_an_agent_deletes_what_killed_ones_have_left_of_files_in_the_making(place: Place) -> None:
    """Beside the runs and in finished ones, once it is old; a fresh one may be another agent's."""
    assert place.run("seeds.yaml")[0] == 0
    run = place.runs()[0]
    old = [run.parent / ".plan.json.0123abcd.tmp", run / ".state.json.0123abcd.tmp"]
    for path in (*old, fresh := run.parent / ".plan.json.4567abcd.tmp"):
        path.write_text("{")
    for path in old:
        os.utime(path, (0, 0))
    assert place.run("seeds.yaml")[0] == 0
    assert [path.exists() for path in (*old, fresh)] == [False, False, True]
