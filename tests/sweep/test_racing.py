"""Racing: one seed of every recipe, then further seeds of those that won; no more runs than that, and none lost."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune.rundir import files, keys
from finetune.rundir.claim import hold_claim
from finetune.sweep import plan, racing, sweep_file
from finetune.sweep.progress import TimeLeftEstimator
from finetune.system import documents
from tests.support.agent_in_process import InProcess
from tests.support.agent_processes import Place, identify, write_sweep

RATES = [0.001, 0.003, 0.004]  # the stand-in for training does best with 0.003


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A folder with a sweep of two strategies, three rates and three seeds: 18 runs, 10 of which a race needs."""
    write_sweep(tmp_path, seeds=3, strategy={"values": ["head", "full"]}, lr={"values": RATES})
    return InProcess(tmp_path)


def finished(place: Place) -> set[tuple[str, float, int]]:
    """Return strategy, rate and seed of the finished runs."""
    return {
        (config["strategy"], config["lr"], config["seed"])
        for folder in files.find_runs(place.folder / "runs" / "seeds")
        if (folder / keys.SUMMARY).exists()
        for config in [files.read_config(folder)]
    }


FIRSTS = {(strategy, rate, 0) for strategy in ("head", "full") for rate in RATES}
NEEDED = FIRSTS | {(strategy, 0.003, seed) for strategy in ("head", "full") for seed in (1, 2)}


@pytest.mark.parametrize("agents", ["1", "2"])
def test_further_seeds_are_for_the_recipes_that_won(place: Place, agents: str) -> None:
    """10 runs instead of 18; the sweep is then finished, and the same command does nothing."""
    code, output = place.run("seeds.yaml", "--race", "--agents", agents)
    assert code == 0, output
    assert finished(place) == NEEDED
    assert "[10/10]" in output
    assert "done: 10 finished, 0 failed, 0 left" in output
    assert output.count("is ahead on val; 4 runs of other recipes are left out") == 2
    code, output = place.run()  # the newest unfinished sweep: not this one
    assert "runs/seeds" not in output


def test_a_race_goes_on_as_one_and_can_be_called_off(place: Place) -> None:
    """Stopped after 4 runs and started without the flag, it is still a race; --no-race runs all there is."""
    assert place.run("seeds.yaml", "--race", "--count", "4")[0] == 0
    assert len(finished(place)) == 4
    assert place.run("runs/seeds")[0] == 0
    assert finished(place) == NEEDED
    assert place.run("seeds.yaml", "--no-race", "--agents", "2")[0] == 0
    assert len(finished(place)) == 18


def test_a_race_over_folds_compares_recipes_on_the_first_fold(place: Place) -> None:
    """Each recipe once, then the winners on the other folds: no recipe is compared with another on another fold."""
    write_sweep(place.folder, seeds=1, strategy={"values": ["head", "full"]}, lr={"values": RATES})
    code, output = place.run("seeds.yaml", "--race", "--folds", "3", "--agents", "2")
    assert code == 0, output
    configs = [files.read_config(run) for run in place.runs()]
    ran = {(config["strategy"], config["lr"], config["fold"]) for config in configs}
    assert ran == {(strategy, rate, 0) for strategy in ("head", "full") for rate in RATES} | {
        (strategy, 0.003, fold) for strategy in ("head", "full") for fold in (1, 2)
    }
    assert {config["folds"] for config in configs} == {3}


def test_a_new_seed_is_for_the_winners_too(place: Place) -> None:
    """What has been decided need not be raced again."""
    assert place.run("seeds.yaml", "--race", "--agents", "2")[0] == 0
    code, output = place.run("seeds.yaml", "--set", "seed=[0,1,2,3]")
    assert code == 0
    assert finished(place) == NEEDED | {("head", 0.003, 3), ("full", 0.003, 3)}
    assert "[12/12]" in output


def test_a_recipe_that_diverged_is_out_of_the_race(place: Place) -> None:
    """Its strategy's others go on; a strategy whose recipes all failed has no further seeds."""
    code, _ = place.run("seeds.yaml", "--race", "--set", "strategy=head", diverge="0", max_failures="0")
    assert code == 1
    assert finished(place) == set()
    assert sum(1 for _ in files.find_runs(place.folder / "runs" / "seeds")) == 3


def test_two_agents_on_one_race_make_no_run_twice_and_none_too_many(place: Place) -> None:
    """A contest is open as long as any agent is at one of its runs."""
    place = Place(place.folder)
    agents = [place.start("seeds.yaml", "--race", "--agents", "2") for _ in range(2)]
    assert [agent.wait()[0] for agent in agents] == [0, 0]
    assert place.run("runs/seeds")[0] == 0  # what neither could start while the other's contest was open
    assert finished(place) == NEEDED
    assert set(place.starts()) == {1}


def test_a_contest_decided_behind_an_agents_back_bars_the_recipes_that_lost(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last first run may end, in another process, between an agent's two looks at the folder."""
    assert place.run("seeds.yaml", "--race", "--count", "6")[0] == 0
    assert finished(place) == FIRSTS
    monkeypatch.chdir(place.folder)
    todo = plan.make_plan(sweep_file.load("seeds.yaml"), None, identify, race=True)
    further = [run for run in todo.runs if run.config.seed]
    assert len(further) == 12
    losing = {run.id for run in further if run.config.lr != 0.003}
    assert racing.waiting_runs(todo, retry_failed=False) == losing
    assert len(racing.expected_runs(todo, retry_failed=False)) == len(NEEDED)


def test_a_contest_is_open_while_one_of_its_runs_goes_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs it."""
    assert place.run("seeds.yaml", "--race", "--count", "6")[0] == 0
    monkeypatch.chdir(place.folder)
    todo = plan.make_plan(sweep_file.load("seeds.yaml"), None, identify, race=True)
    first = next(run for run in todo.runs if run.config.strategy == "full" and run.config.lr == 0.004)
    (first.directory / keys.SUMMARY).unlink()
    (first.directory / keys.STATE).unlink()
    with hold_claim(first.directory):
        assert plan.state_of(first)[0] == "running"
        told = racing.drop_losing_recipes(todo, retry_failed=False)
    assert len(told) == 1
    assert told[0].startswith("race: head: ")
    assert len(todo.runs) == 18 - 4


def test_of_equal_recipes_the_one_with_the_lower_val_loss_wins(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the analysis has it."""
    assert place.run("seeds.yaml", "--race", "--count", "6")[0] == 0
    monkeypatch.chdir(place.folder)
    todo = plan.make_plan(sweep_file.load("seeds.yaml"), None, identify, race=True)
    for run in todo.runs[:6]:
        path = run.directory / keys.SUMMARY
        loss = {0.001: 0.5, 0.003: 0.4, 0.004: 0.6}[run.config.lr]
        documents.write_json(
            path, {**(documents.read_json(path) or {}), "best/val_accuracy": 0.9, "best/val_loss": loss}
        )
    racing.drop_losing_recipes(todo, retry_failed=False)
    assert {run.config.lr for run in todo.runs if run.config.seed} == {0.003}


def test_the_plan_of_a_race_reckons_with_what_it_will_run(place: Place) -> None:
    """And a race is not for what it can't be for."""
    assert "18 runs: 18 to do; 10 needed in this race" in place.run("seeds.yaml", "--race", "--plan")[1]
    write_sweep(place.folder, seeds=3, lr={"min": 0.001, "max": 0.01})
    text = (
        (place.folder / "seeds.yaml")
        .read_text()
        .replace("method: grid", "method: bayes\nrun_cap: 4\nmetric: {name: best/val_accuracy, goal: maximize}")
    )
    (place.folder / "seeds.yaml").write_text(text)
    code, output = place.run("seeds.yaml", "--race")
    assert code == 2
    assert "Bayesian" in output


def test_parts_of_the_pictures_have_contests_of_their_own(tmp_path: Path) -> None:
    """The best rate for all images says nothing of a tenth: the further seed of a winner is run for each part."""
    shares = {"values": [0.1, 1.0]}
    write_sweep(tmp_path, seeds=2, strategy={"value": "head"}, lr={"values": RATES}, train_share=shares)
    place = InProcess(tmp_path)
    code, output = place.run("seeds.yaml", "--race")
    assert code == 0, output
    configs = [files.read_config(run) for run in files.find_runs(tmp_path / "runs" / "seeds")]
    further = [(config["train_share"], config["lr"]) for config in configs if config["seed"] == 1]
    assert sorted(further) == [(0.1, 0.003), (1.0, 0.003)]
    assert "race: head on 10% of the images: " in output


def counted(calls: Counter[str], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, which counts its calls under a name."""

    def count(*args: Any) -> Any:
        calls[name] += 1
        return function(*args)

    return count


def test_an_agent_s_look_at_a_race_computes_each_recipe_once_and_reads_the_first_runs_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not all of them for each run that waits: an agent looks five times a second, also at 300 runs."""
    monkeypatch.chdir(tmp_path)
    write_sweep(tmp_path, seeds=50, strategy={"values": ["head", "full"]}, lr={"values": RATES})
    todo = plan.make_plan(sweep_file.load("seeds.yaml"), None, identify, race=True)
    calls = Counter[str]()
    monkeypatch.setattr(plan, "recipe", counted(calls, "recipe", plan.recipe))
    monkeypatch.setattr(racing, "state_of", counted(calls, "state_of", racing.state_of))
    for _ in range(3):
        assert racing.drop_losing_recipes(todo, retry_failed=False) == []
        assert len(racing.waiting_runs(todo, retry_failed=False)) == 300 - 6
    assert calls["recipe"] <= 300
    assert calls["state_of"] <= 3 * 2 * 6


def test_the_time_left_of_a_race_is_of_the_runs_that_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four rates, two seeds: five runs, whatever the plan holds before and after the contest; the share only grows."""
    monkeypatch.chdir(tmp_path)
    write_sweep(tmp_path, seeds=2, lr={"values": [0.001, 0.002, 0.003, 0.004]})
    todo = plan.make_plan(sweep_file.load("seeds.yaml"), None, identify, race=True)
    estimator = TimeLeftEstimator(todo, {"head": 10.0})
    shares = [estimator.left(slots=1)]
    while (run := next((run for run in todo.runs if plan.state_of(run)[0] == "to do"), None)) is not None:
        estimator.started(run)
        run.directory.mkdir(parents=True)
        scores = {"best/val_accuracy": run.config.lr, "best/val_loss": 0.5}
        documents.write_json(run.directory / keys.SUMMARY, {"state": "finished", **scores})
        estimator.ended(run)
        racing.drop_losing_recipes(todo, retry_failed=False)
        shares.append(estimator.left(slots=1))
    assert [share for share, _ in shares] == [pytest.approx(done / 5) for done in range(6)]
    assert [seconds for _, seconds in shares] == [pytest.approx(20.0 * left) for left in range(5, -1, -1)]


def test_arms_do_not_race_against_each_other(place: Place) -> None:
    """Augmentations are what the sweep compares: each gets all its seeds, at its better rate."""
    arguments = ("--set", "strategy=head", "--set", "augment=[none,light]", "--set", "lr=[0.001,0.003]")
    assert place.run("seeds.yaml", "--race", *arguments)[0] == 0
    configs = [files.read_config(run) for run in files.find_runs(place.folder / "runs" / "seeds")]
    counts = Counter((config["augment"], config["lr"]) for config in configs)
    assert {augment for augment, _ in counts} == {"none", "light"}
    assert sorted(counts.values()) == [1, 1, 3, 3]
