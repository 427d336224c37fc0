"""Runs go breadth first: whatever a sweep is cut short to has a bit of everything."""

import json
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from finetune.config import Config, parse_config
from finetune.resolve import resolve
from finetune.sweep import sweep_file
from finetune.sweep.ordering import breadth_first
from finetune.sweep.plan import SweepPlan, make_plan
from tests.support.agent_processes import identify

VALUES = {
    "strategy": st.sampled_from(["scratch", "head", "partial", "gradual", "full"]),
    "lr": st.sampled_from([1e-3, 3e-3, 1e-2]),
    "unfreeze": st.sampled_from([None, [[0, 0.5]], [[0, 0], [2, 1]]]),
    "weight_decay": st.sampled_from([0.0, 0.1]),
    "seed": st.integers(0, 3),
    "folds": st.just(3),
    "fold": st.integers(0, 2),
}


@cache
def config_of(point: str) -> Config:
    """Return the resolved config of a point, given as JSON."""
    return resolve(parse_config(json.loads(point), "here"))


RUNS = st.lists(st.fixed_dictionaries(VALUES).map(lambda point: config_of(json.dumps(point))), max_size=40)

LEVELS: list[Callable[[Config], Hashable]] = [
    lambda config: config.strategy,
    lambda config: (config.strategy, str(config.unfreeze)),
    lambda config: (config.strategy, str(config.unfreeze), config.lr),
    lambda config: config.model_copy(update={"seed": 0, "fold": 0, "unfreeze": str(config.unfreeze)}),
]


def is_fair(keys: Sequence[Hashable]) -> bool:
    """Whether no key comes again before all of them have come once."""
    first_repeat = next((index for index, key in enumerate(keys) if key in keys[:index]), len(keys))
    return set(keys[:first_repeat]) == set(keys)


@given(RUNS)
def test_it_is_a_permutation(configs: list[Config]) -> None:
    """Each run is started once."""
    assert sorted(breadth_first(configs)) == list(range(len(configs)))


@given(RUNS)
def test_nothing_is_repeated_before_all_has_been_seen(configs: list[Config]) -> None:
    """Strategies, their schedules, the rates with these, and recipes: in every beginning of the order."""
    ordered = [configs[index] for index in breadth_first(configs)]
    assert all(is_fair([level(config) for config in ordered]) for level in LEVELS)


@given(RUNS)
def test_each_round_of_seeds_is_fair_too(configs: list[Config]) -> None:
    """The second seeds of all recipes come in the same manner, after the first ones."""
    ordered = [configs[index] for index in breadth_first(configs)]
    recipes = [LEVELS[-1](config) for config in ordered]
    rounds = [recipes[:index].count(recipe) for index, recipe in enumerate(recipes)]
    assert rounds == sorted(rounds)
    for number in set(rounds):
        some = [config for config, its_round in zip(ordered, rounds, strict=True) if its_round == number]
        assert all(is_fair([level(config) for config in some]) for level in LEVELS)


@given(RUNS)
def test_runs_alike_keep_their_order(configs: list[Config]) -> None:
    """A recipe's seeds come in the order of the sweep file."""
    order = breadth_first(configs)
    for recipe in {LEVELS[-1](config) for config in configs}:
        places = [index for index in order if LEVELS[-1](configs[index]) == recipe]
        assert places == sorted(places)


def test_a_grid_goes_by_strategy_then_rate_then_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two strategies by two rates by two seeds, as the plan lists them."""
    parameters = {"strategy": ["head", "full"], "lr": [0.001, 0.003], "seed": [0, 1]}
    plan = planned(tmp_path, monkeypatch, "grid", parameters)
    assert [(run.config.strategy, run.config.lr, run.config.seed) for run in plan.runs] == [
        (strategy, lr, seed) for seed in (0, 1) for lr in (0.001, 0.003) for strategy in ("head", "full")
    ]


def test_a_fold_is_like_a_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All recipes on the first fold before one of them on the second."""
    parameters = {"folds": [2], "fold": [0, 1], "lr": [0.001, 0.003], "seed": [0, 1], "strategy": ["head"]}
    plan = planned(tmp_path, monkeypatch, "grid", parameters)
    assert [run.config.lr for run in plan.runs] == [0.001, 0.003] * 4
    assert len({(run.config.fold, run.config.seed) for run in plan.runs[:2]}) == 1


def test_a_random_search_begins_with_each_strategy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However they are drawn."""
    strategies = ["scratch", "head", "partial", "gradual", "full"]
    plan = planned(tmp_path, monkeypatch, "random", {"strategy": strategies, "seed": list(range(1000))}, run_cap=40)
    assert {run.config.strategy for run in plan.runs[:5]} == set(strategies)


def planned(
    folder: Path, monkeypatch: pytest.MonkeyPatch, method: str, values: dict[str, list[object]], **keys: object
) -> SweepPlan:
    """Write a sweep file over these values, and plan it."""
    monkeypatch.chdir(folder)
    spec = {"method": method, "parameters": {name: {"values": some} for name, some in values.items()}, **keys}
    Path("my.yaml").write_text(yaml.safe_dump(spec))
    return make_plan(sweep_file.load("my.yaml"), None, identify)
