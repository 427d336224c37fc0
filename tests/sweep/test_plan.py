"""A sweep file becomes a checked list of runs, and a file with faults becomes one clear message."""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from finetune.config import Config
from finetune.errors import ConfigError, UserError
from finetune.rundir import files, keys
from finetune.rundir.claim import hold_claim
from finetune.sweep import search, sweep_file
from finetune.sweep.display import show_plan
from finetune.sweep.early_stopping import observations
from finetune.sweep.plan import SweepPlan, make_plan, state_of, store_plan
from finetune.sweep.trials import TRIALS, in_search_space, read_trials, record_trial
from finetune.system import documents
from tests.support.agent_processes import identify

METRIC = {"name": "best/val_accuracy", "goal": "maximize"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(parameters: dict[str, Any], *settings: str, count: int | None = None, **keys: Any) -> SweepPlan:
    """Write a sweep file, and plan it."""
    spec = {"method": "grid", "parameters": parameters, **keys}
    Path("my.yaml").write_text(yaml.safe_dump(spec))
    return make_plan(sweep_file.load("my.yaml", settings), count, identify)


def faults(parameters: dict[str, Any], *settings: str, **keys: Any) -> str:
    """Return the message for a sweep with faults."""
    with pytest.raises(UserError) as caught:
        planned(parameters, *settings, **keys)
    return str(caught.value)


def test_a_grid_is_every_combination() -> None:
    """Two strategies by three rates are six runs, rates given as text included."""
    plan = planned({"strategy": {"values": ["head", "full"]}, "lr": {"values": ["1e-3", 0.003, 1e-2]}})
    assert sorted((run.config.strategy, run.config.lr) for run in plan.runs) == [
        ("full", 0.001), ("full", 0.003), ("full", 0.01), ("head", 0.001), ("head", 0.003), ("head", 0.01)
    ]  # fmt: skip
    assert plan.points == 6
    assert plan.collapsed == []
    assert all(run.directory == Path("runs/my") / run.id for run in plan.runs)


def test_points_that_resolve_to_the_same_run_are_run_once_and_the_reason_is_told() -> None:
    """`head` has no use for a backbone rate or a schedule; `scratch` has none for weights."""
    plan = planned({"strategy": {"values": ["head", "full"]}, "backbone_lr": {"values": [1e-4, 1e-3]}})
    assert len(plan.runs) == 3
    assert [reason for _, reason in plan.collapsed] == ["head ignores backbone_lr"]
    schedules = [[[0, 0.5]], [[0, 0], [2, 1]]]
    plan = planned({"strategy": {"values": ["head", "partial"]}, "unfreeze": {"values": schedules}})
    assert [reason for _, reason in plan.collapsed] == ["head ignores unfreeze"]
    plan = planned({"strategy": {"value": "scratch"}, "weights": {"values": ["demo", "DEFAULT"]}})
    assert [reason for _, reason in plan.collapsed] == ["scratch ignores weights"]


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"strategy": {"values": ["full", "partial"]}, "unfreeze": {"value": [[0, 1]]}}, "partial is full"),
        ({"lr": {"value": 0.01}, "backbone_lr": {"values": [None, 0.002]}}, "backbone_lr 0.002 is the default"),
        ({"lr": {"values": [0.001, "1e-3"]}}, "given twice"),
        ({"device": {"values": ["cpu", "auto"]}}, "device changes no result"),
    ],
)
def test_why_points_collapse(parameters: dict[str, Any], reason: str) -> None:
    """The reason is told in words that fit the case."""
    plan = planned(parameters)
    assert len(plan.runs) == 1
    assert [why for _, why in plan.collapsed] == [reason]


def test_settings_replace_parameters() -> None:
    """--set fixes a swept parameter, adds one, and sweeps over a list; a schedule is one value."""
    parameters = {"lr": {"values": [0.1, 0.2]}, "strategy": {"value": "partial"}}
    plan = planned(parameters, "lr=1e-3", "seed=[0,1,2]", "unfreeze=[[0, 0.2], [3, 0.5]]")
    assert [(run.config.lr, run.config.seed) for run in plan.runs] == [(0.001, seed) for seed in range(3)]
    assert plan.runs[0].config.unfreeze == [(0, 0.2), (3, 0.5)]
    plan = planned(parameters, "lr=1e-3", "unfreeze=[[[0, 0.2]], null]")
    assert [run.config.unfreeze for run in plan.runs] == [[(0, 0.2)], [(0, pytest.approx(1 / 3))]]


def test_the_stored_sweep_is_the_effective_one(folder: Path) -> None:
    """It can be planned again from its folder, wherever that is, and gives the same runs."""
    (folder / "pictures").mkdir()
    plan = planned({"lr": {"values": [0.1, 0.2]}}, "lr=0.3", "data=pictures")
    store_plan(plan)
    stored = yaml.safe_load(Path("runs/my/sweep.yaml").read_text())
    assert stored["parameters"] == {"lr": {"value": 0.3}, "data": {"value": str(folder / "pictures")}}
    again = make_plan(sweep_file.load("runs/my"), None, identify)
    assert [run.directory.resolve() for run in again.runs] == [run.directory.resolve() for run in plan.runs]


def test_an_unchanged_sweep_file_is_stored_as_it_is() -> None:
    """With its comments."""
    Path("my.yaml").write_text("# why\nmethod: grid\nparameters: {data: {value: demo}}\n")
    store_plan(make_plan(sweep_file.load("my.yaml"), None, identify))
    assert Path("runs/my/sweep.yaml").read_text().startswith("# why\n")


def test_random_trials_come_again() -> None:
    """Trial i depends on the sweep's name and i alone, and the callers' random streams are left as they were."""
    parameters = {"lr": {"min": 0.001, "max": 0.1}, "seed": {"min": 0, "max": 99}}
    random.seed(1)
    np.random.seed(1)
    first = planned(parameters, method="random", run_cap=5)
    drawn = random.random(), np.random.rand()
    random.seed(1)
    np.random.seed(1)
    assert drawn == (random.random(), np.random.rand())
    again = planned(parameters, method="random", count=7)
    assert [run.id for run in again.runs][:5] == [run.id for run in first.runs]
    assert len({run.config.lr for run in again.runs}) == 7
    assert type(again.runs[0].point["lr"]) is float
    assert type(again.runs[0].point["seed"]) is int
    assert search.draw_point(first.sweep.spec, "other", 0) != search.draw_point(first.sweep.spec, "my", 0)


def test_bayesian_search_learns_from_finished_runs() -> None:
    """With the optimum at 0.3, proposals gather there; equal states give equal proposals."""
    spec = {"method": "bayes", "metric": METRIC, "parameters": {"dropout": {"min": 0.0, "max": 0.9}}}
    trials: list[search.ObservedPoint] = []
    for number in range(14):
        point = search.propose_point(spec, "my", number, trials)
        if number in (0, 5):
            assert point == search.propose_point(spec, "my", number, trials)
        value = 1 - (point["dropout"] - 0.3) ** 2
        trials.append(search.ObservedPoint(str(number), point, "finished", {"best/val_accuracy": value}))
    assert abs(max(trials, key=lambda trial: trial.summary["best/val_accuracy"]).point["dropout"] - 0.3) < 0.05


def test_trials_are_noted_once_and_outlive_a_change_of_the_sweep(folder: Path) -> None:
    """The first to note a number wins; a trial outside the present space is left out."""
    record_trial(folder, 0, {"lr": 0.1})
    record_trial(folder, 0, {"lr": 0.2})
    record_trial(folder, 1, {"lr": 0.9})
    assert read_trials(folder) == [{"lr": 0.1}, {"lr": 0.9}]
    spec = {"parameters": {"lr": {"min": 0.05, "max": 0.5}}}
    assert [in_search_space(spec, point) for point in read_trials(folder)] == [True, False]
    assert not in_search_space({"parameters": {"lr": {"value": 0.3}}}, {"lr": 0.1})
    assert not in_search_space({"parameters": {"seed": {"values": [1]}}}, {"lr": 0.1})


def test_a_proposal_that_is_rounded_beyond_a_bound_is_a_trial_like_any_other(folder: Path) -> None:
    """The engine rounds to multiples of q; what no agent ran, and the search never heard of, was proposed again."""
    swept = {"dropout": {"distribution": "q_uniform", "min": 0.0, "max": 0.55, "q": 0.2}}
    record_trial(folder / "runs/my", 0, {"dropout": 0.6000000000000001})
    plan = planned(swept, method="bayes", run_cap=9, metric=METRIC)
    assert [run.config.dropout for run in plan.runs] == [0.6000000000000001]
    assert plan.points == 1


def test_a_trial_that_is_no_valid_config_is_a_point_that_failed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each value is in its range, but not both together: it adds no run, and the search is told of it."""
    swept = {"epochs": {"min": 3, "max": 6}, "warmup_epochs": {"min": 0.0, "max": 3.05}}
    record_trial(folder / "runs/my", 0, {"epochs": 3, "warmup_epochs": 3.02})
    record_trial(folder / "runs/my", 1, {"epochs": 5, "warmup_epochs": 3.02})
    plan = planned(swept, method="bayes", run_cap=9, metric=METRIC)
    assert [run.config.epochs for run in plan.runs] == [5]
    assert plan.points == 2
    ((point, fault),) = plan.faulty
    assert point == {"epochs": 3, "warmup_epochs": 3.02}
    assert "warmup_epochs" in fault
    assert [(seen.point, seen.state) for seen in observations(plan) if seen.state == "failed"] == [(point, "failed")]
    show_plan(plan)
    assert "1 point proposed by the search, and no valid config: " in capsys.readouterr().out


def test_a_damaged_trial_is_passed_over_by_name(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is lost, no other; one that is still empty is being written."""
    record_trial(folder, 0, {"lr": 0.1})
    record_trial(folder, 1, {"lr": 0.2})
    record_trial(folder, 2, {"lr": 0.3})
    (folder / TRIALS / "00003.json").touch()
    (folder / TRIALS / "00001.json").write_text('{"lr": 0.')
    for _ in range(2):
        assert read_trials(folder) == [{"lr": 0.1}, {}, {"lr": 0.3}]
    (line,) = caplog.messages
    assert "00001.json is passed over" in line
    assert "Rename or delete it" in line


def test_bayesian_search_keeps_the_order_of_its_trials() -> None:
    """Each one was asked for when the ones before it were known."""
    swept = {"strategy": {"values": ["head", "full"]}, "lr": {"min": 0.001, "max": 0.1}}
    for number, (strategy, lr) in enumerate([("head", 0.01), ("head", 0.02), ("full", 0.01)]):
        record_trial(Path("runs/my"), number, {"strategy": strategy, "lr": lr})
    plan = planned(swept, method="bayes", run_cap=9, metric=METRIC)
    assert [run.config.strategy for run in plan.runs] == ["head", "head", "full"]


def test_the_state_of_a_run_is_read_from_its_directory() -> None:
    """To do, running, interrupted, failed, finished."""
    run = planned({"data": {"value": "demo"}}).runs[0]
    assert state_of(run) == ("to do", "")
    with hold_claim(run.directory):
        assert state_of(run) == ("running", "")
    assert state_of(run)[0] == "interrupted"
    files.write_state(run.directory, "failed", "ValueError: x")
    assert state_of(run) == ("failed", "ValueError: x")
    documents.write_json(run.directory / keys.SUMMARY, {"state": "finished"})
    assert state_of(run) == ("finished", "")


def test_the_newest_unfinished_sweep_is_the_default() -> None:
    """Sweeps whose runs are all finished or failed are passed over."""
    assert sweep_file.newest_unfinished(Path("runs")) is None
    plan = planned({"seed": {"values": [0, 1]}})
    store_plan(plan)
    assert sweep_file.newest_unfinished(Path("runs")) == Path("runs/my")
    assert sweep_file.load(None).folder == Path("runs/my")
    for run, state in zip(plan.runs, ("failed", "killed"), strict=True):
        run.directory.mkdir()
        files.write_state(run.directory, state)
    assert sweep_file.newest_unfinished(Path("runs")) == Path("runs/my")
    documents.write_json(plan.runs[1].directory / keys.SUMMARY, {"state": "finished"})
    assert sweep_file.newest_unfinished(Path("runs")) is None


def test_all_faults_of_all_points_are_told_at_once_and_once() -> None:
    """Unknown names with the nearest one, bad values wherever in the grid they are."""
    message = faults({"strategy": {"values": ["head", "partal"]}, "lr": {"values": [-1, 0.1]}, "epoch": {"value": 3}})
    assert message.startswith("3 faults in my.yaml\n")
    assert "epoch: no such field. Did you mean 'epochs'?" in message
    assert "strategy: 'partal' is unknown. Did you mean 'partial'?" in message
    assert message.count("lr: -1") == 1


@pytest.mark.parametrize(
    ("parameters", "keys", "message"),
    [
        ({"lr": 0.1}, {}, "lr: write lr: {value: 0.1}"),
        ({"lr": [0.1, 0.2]}, {}, "lr: write lr: {values: [0.1, 0.2]}"),
        ({"lr": {"min": "1e-3", "max": 1.0}}, {"method": "random", "run_cap": 2}, "YAML reads min: 1e-3 as text"),
        ({"lr": {"min": 0.1, "max": 0.5}}, {}, "grid search"),
        ({"lr": {"min": 0.1, "max": 0.5}}, {"method": "random"}, "add `run_cap: 20`, or give --count 20"),
        ({"lr": {"min": 0.1, "max": 0.5}}, {"method": "bayes", "run_cap": 2}, "metric: bayes and early_terminate need"),
        ({"lr": {"min": 0.1, "max": 50.0}}, {"method": "bayes", "run_cap": 2, "metric": METRIC}, "lr: 50.0"),
        ({"lr": {"value": 1}}, {"method": "gird"}, "'gird' is not one of"),
        ({"lr": {"value": 1}}, {"method": "custom"}, "here: grid, random, bayes"),
        ({"lr": {"value": 1}}, {"metric": {"name": "val_accuracy", "goal": "maximize"}}, "Did you mean"),
        ({"lr": {"value": 1}}, {"metric": {"name": "test/accuracy", "goal": "maximize"}}, "must not choose"),
        ({"lr": {"value": 1}}, {"metric": {"name": "best/val_accuracy"}}, "add `goal: maximize`"),
        ({"lr": {"value": 1}}, {"seeds": 3}, "seeds: no such key"),
        ({"data": {"value": "nowhere"}}, {}, "nowhere: no such folder"),
    ],
)  # fmt: skip
def test_a_sweep_with_a_fault_is_refused(parameters: dict[str, Any], keys: dict[str, Any], message: str) -> None:
    """The message names the file, or the place, and says how to mend it."""
    assert message in faults(parameters, **keys)


def test_the_stored_sweep_still_names_its_claims_after_a_setting(tmp_path: Path) -> None:
    """Other comments, such as the number of runs, may not hold any more."""
    text = "# Runs: 2\n# Claims: claims/mine.yaml\nmethod: grid\nparameters: {lr: {values: [1, 2]}}\n"
    (tmp_path / "my.yaml").write_text(text)
    stored = sweep_file.load(str(tmp_path / "my.yaml"), ["epochs=3"]).text
    assert stored.splitlines()[:2] == ["# my.yaml with some parameters replaced", "# Claims: claims/mine.yaml"]
    assert "Runs" not in stored


def test_faults_of_settings_and_of_the_file_are_told_together() -> None:
    """A misspelt --set does not hide what else is wrong."""
    message = faults({"lr": {"values": [1, -1]}}, "bach_size=3", "strategy=partal")
    assert all(word in message for word in ("'batch_size'", "lr: -1", "'partial'"))


@pytest.mark.parametrize("setting", ["lr", "epoch=3", "lr=[", "lr=-1", "lr=[0.1, x]"])
def test_settings_with_a_fault_are_refused(setting: str) -> None:
    """A key that does not exist, no '=', no YAML, a bad value."""
    assert "fault" in faults({"lr": {"value": 1}}, setting)


def test_a_config_error_is_a_user_error() -> None:
    """So every fault of a sweep file ends with exit code 2."""
    assert issubclass(ConfigError, UserError)
    assert "lr" in Config.model_fields


def test_a_trial_that_is_being_written_is_none_yet_and_one_that_never_will_be_is_noted_anew(folder: Path) -> None:
    """Without hard links a name is taken first; a kill before the text follows must not end the search."""
    record_trial(folder, 0, {"lr": 0.1})
    (folder / "trials" / "00001.json").touch()
    record_trial(folder, 2, {"lr": 0.3})
    record_trial(folder, 1, {"lr": 0.2})
    assert read_trials(folder) == [{"lr": 0.1}]
    os.utime(folder / "trials" / "00001.json", (0, 0))
    record_trial(folder, 1, {"lr": 0.2})
    assert read_trials(folder) == [{"lr": 0.1}, {"lr": 0.2}, {"lr": 0.3}]
