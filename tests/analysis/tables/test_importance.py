"""What val accuracy depends on: a setting that decides it, one that does nothing, and chance."""

import itertools
from pathlib import Path

import numpy as np

from analysis.sources.run_directories import read_sweep
from analysis.sources.sweep import Sweep
from analysis.tables.recipes import setting_importance, varied_fields
from tests.support.fabricate import fabricate_run


def sweep_of(folder: Path, rates: list[float], seeds: int) -> Sweep:
    """Return a sweep in which the rate decides val, and neither weight decay nor seed does anything to it."""
    for (place, lr), decay, seed in itertools.product(enumerate(rates), (0.0, 0.01), range(seeds)):
        fabricate_run(folder, f"{place}-{decay}-{seed}", lr=lr, weight_decay=decay, seed=seed, val=0.5 + 0.1 * place)
    return read_sweep(folder)


def test_the_setting_that_decides_comes_first(tmp_path: Path) -> None:
    """The others do not rise above chance, which the seed shows."""
    runs = sweep_of(tmp_path, [0.001, 0.003, 0.01, 0.03], 3).finished
    table = setting_importance(runs, np.random.default_rng(0))
    assert table is not None
    assert table["field"].iloc[0] == "lr"
    assert set(table["field"]) == {"lr", "weight_decay", "seed"}
    points = table.set_index("field")["points"]
    assert points["lr"] > 0.08  # shuffled, the rate's guess is off by 12.5 points on average
    assert abs(points["weight_decay"]) < 0.01
    assert abs(points["seed"]) < 0.01
    assert (table["low"] <= table["points"]).all()
    assert (table["points"] <= table["high"]).all()


def test_equal_generators_give_equal_numbers_in_any_order_of_rows(tmp_path: Path) -> None:
    """A frame is a set of rows."""
    runs = sweep_of(tmp_path, [0.001, 0.003], 3).finished
    tables = [
        setting_importance(some, np.random.default_rng(7)) for some in (runs, runs.sample(frac=1, random_state=1))
    ]
    assert tables[0] is not None
    assert tables[1] is not None
    assert tables[0].equals(tables[1])


def test_too_few_runs_say_nothing(tmp_path: Path) -> None:
    """A forest on eight runs would rank noise."""
    assert setting_importance(sweep_of(tmp_path, [0.001, 0.003], 2).finished, np.random.default_rng(0)) is None


def test_a_setting_that_follows_from_another_is_no_setting(tmp_path: Path) -> None:
    """The backbone's rate is a fifth of the head's in every run."""
    assert varied_fields(sweep_of(tmp_path, [0.001, 0.003], 2).finished) == ["lr", "weight_decay"]
